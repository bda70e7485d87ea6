"""The steps of a keeper's round, some of which fail."""

from schedulerd.process.keeper.steps import LONGEST_PAUSE, Steps
from tests.support.builders import NOON
from tests.support.manual_clock import ManualClock


def fail(steps, name="orders"):
    with steps.step(name):
        raise OSError("no space left")


def test_an_error_ends_with_its_step_and_is_written_once(capsys):
    steps, done = Steps(ManualClock(NOON)), []
    for number in range(100):
        fail(steps)
        with steps.step("ends of runs"):
            done.append(number)
    told = capsys.readouterr().err

    assert len(done) == 100
    assert told.count("orders: unexpected error, continuing") == told.count("OSError: no space left") == 1


def test_what_fails_is_told_for_a_while_though_it_works_in_between():
    clock = ManualClock(NOON)
    steps = Steps(clock)
    fail(steps)
    with steps.step("orders"):
        """It works."""
    assert [text.split(":")[0] for text in steps.failing] == ["orders"]
    clock.advance(61)

    assert steps.failing == []


def test_a_pause_follows_a_round_in_which_something_failed_and_no_other():
    steps = Steps(ManualClock(NOON))
    pauses = []
    for _ in range(50):
        fail(steps)
        pauses.append(steps.pause_seconds())
    with steps.step("orders"):
        """It works."""

    assert pauses[0] < pauses[1] < pauses[-1] == LONGEST_PAUSE
    assert steps.pause_seconds() == 0.0
