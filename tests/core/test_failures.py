"""What of a part that fails again and again is logged, and what is told while it lasts."""

import pytest

from schedulerd.core.failures import FailureLog
from schedulerd.core.loop_steps import StepSequence
from tests.support.builders import NOON
from tests.support.manual_clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock(NOON)


def lines(failures, clock, seconds, every=0.1):
    """Let the part fail for so long, each tenth of a second; return what is logged of it."""
    found = []
    for _ in range(int(seconds / every)):
        found.append(failures.failed(OSError("no space left")))
        clock.advance(every)
    return [line for line in found if line is not None]


def test_a_day_of_failures_is_a_few_lines_with_their_count(clock):
    told = lines(FailureLog("the writer", clock), clock, 86400, every=1)

    assert told[0] == "the writer: unexpected error, continuing"
    assert told[1] == "the writer: unexpected error, continuing, 59 times more since the last message"
    assert 20 < len(told) < 30


def test_a_step_that_fails_every_other_time_does_not_flood_the_log(clock):
    failures, told = FailureLog("the writer", clock), []
    for _ in range(1000):
        told += [failures.failed(OSError("no")), failures.succeeded()]
        clock.advance(0.01)

    assert [line for line in told if line is not None] == [
        "the writer: unexpected error, continuing",
        "the writer: works again after 1 failure in a row",
    ]


def test_trouble_is_reported_while_it_lasts(clock):
    failures = FailureLog("the writer", clock)
    assert failures.trouble is None
    failures.failed(OSError("no space left"))
    assert failures.trouble == "the writer: OSError: no space left"
    failures.succeeded()

    assert failures.trouble is None


def test_pauses_grow_up_to_a_bound_and_end_with_a_success(clock):
    failures = FailureLog("the writer", clock)
    pauses = []
    for _ in range(2000):
        failures.failed(OSError("no"))
        pauses.append(failures.pause_seconds)
    failures.succeeded()

    assert pauses[:3] == [0.2, 0.4, 0.8]
    assert pauses[-1] == 5.0
    assert failures.pause_seconds == 0.0


def test_a_failure_after_a_quiet_time_is_logged_at_once(clock):
    failures = FailureLog("the writer", clock)
    lines(failures, clock, 1000)
    failures.succeeded()
    clock.advance(3601)

    assert failures.failed(OSError("no")) is not None


def test_a_step_that_fails_does_not_prevent_the_others(clock, caplog):
    done = []

    def fail(_now):
        raise OSError("no")

    parts = StepSequence(clock, {"first": fail, "second": done.append})
    for _ in range(50):
        parts(NOON)

    assert len(done) == 50
    assert parts.trouble == "first: OSError: no"
    assert [record.message for record in caplog.records] == ["first: unexpected error, continuing"]
    assert caplog.records[0].exc_info
