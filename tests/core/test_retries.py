"""Further attempts: they are bounded, their delays grow to a bound, and none is at the deadline or later."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.core.models import Origin, Result, Status, finish, to_text
from schedulerd.core.retries import (
    MOST_RERUNS,
    delay_seconds,
    is_superseded,
    outcome_of,
    retry_after,
    retry_at_of,
    within_deadline,
)
from schedulerd.engine.completion import next_row
from tests.support.builders import NOON, a_job, a_run

SECOND = timedelta(seconds=1)
DELAYS = st.floats(0.0, 1e7)


def failed(run, status=Status.FAILED, at=NOON, exit_code=1):
    return finish(replace(run, started_at=run.started_at or at), Result(status, exit_code=exit_code), at, 1.0)


@given(delay=DELAYS, longest=DELAYS, backoff=st.floats(1.0, 100.0), number=st.integers(1, 1000))
def test_delays_never_shrink_and_have_a_bound(delay, longest, backoff, number):
    job = a_job(retry_delay_seconds=delay, retry_max_delay_seconds=longest, retry_backoff=backoff)

    assert min(delay, longest) <= delay_seconds(job, number) <= delay_seconds(job, number + 1) <= longest


def test_the_first_delay_is_the_delay_and_each_further_one_is_so_many_times_longer():
    job = a_job(retry_delay_seconds=10.0, retry_backoff=3.0, retry_max_delay_seconds=100.0)

    assert [delay_seconds(job, number) for number in (1, 2, 3, 4, 900)] == [10.0, 30.0, 90.0, 100.0, 100.0]


@given(retries=st.integers(0, 30), deadline=st.none() | st.floats(0.0, 3600.0), backoff=st.floats(1.0, 3.0))
def test_attempts_are_bounded_and_none_starts_at_the_deadline_or_later(retries, deadline, backoff):
    job = a_job(retries=retries, deadline_seconds=deadline, retry_backoff=backoff)
    now, rows, given_run = NOON, [], a_run()
    while given_run is not None:
        rows.append(given_run)
        _, given_run = next_row(job, given_run, failed(given_run, at=now), now)
        if given_run is not None:
            assert retry_at_of(given_run) >= now
            now = retry_at_of(given_run)
            assert deadline is None or now < NOON + deadline * SECOND

    assert len(rows) <= 1 + retries
    assert deadline is not None or len(rows) == 1 + retries
    assert [run.attempt for run in rows] == list(range(1, len(rows) + 1))
    assert {run.details.get("of", run.run_id) for run in rows} == {rows[0].run_id}
    assert {(run.job_id, run.scheduled_at) for run in rows} == {("job", NOON)}


@pytest.mark.parametrize(
    ("retry_on", "status", "code", "expected"),
    [
        (("failed", "timed_out"), Status.FAILED, 1, True),
        (("failed", "timed_out"), Status.TIMED_OUT, -15, True),
        (("failed", "timed_out"), Status.ABANDONED, None, False),
        (("failed", "timed_out", "abandoned"), Status.CANCELLED, 1, False),
        (("abandoned",), Status.ABANDONED, None, True),
        ((75, 3), Status.FAILED, 75, True),
        ((75, 3), Status.FAILED, 1, False),
        ((75,), Status.CANCELLED, 75, False),
        ((0,), Status.SUCCESS, 0, False),
    ],
)
def test_only_the_ends_that_are_named_are_tried_again(retry_on, status, code, expected):
    job = a_job(retries=1, retry_on=retry_on)

    assert (retry_after(job, failed(a_run(), status, exit_code=code), None, NOON) is not None) is expected


def test_a_retry_in_a_blackout_moves_to_its_end_or_is_none_when_that_is_too_late():
    job = a_job(every="1h", blackout="12:00..13:00", retries=1)

    assert retry_after(job, failed(a_run()), None, NOON) == NOON + timedelta(hours=1)
    assert retry_after(job, failed(a_run()), NOON + timedelta(minutes=30), NOON) is None


def test_a_retry_refers_to_earlier_attempts_and_not_to_their_outcome():
    job = a_job(retries=2)
    run = a_run(
        details={"rules": ["jitter"], "reason": "waits for pool db", "after": {"a": "x"}}, actor="me", idempotency_key="k"
    )
    ended, retry = next_row(job, run, finish(run, Result(Status.FAILED, message="no", details={"cpu": 1}), NOON, 1.0), NOON)

    at = to_text(NOON + 10 * SECOND)
    assert (retry.origin, retry.status, retry.attempt, retry.actor, retry.idempotency_key) == (
        Origin.RETRY, Status.QUEUED, 2, "me", None,
    )  # fmt: skip
    own = {"of": run.run_id, "previous": run.run_id, "retry_number": 1, "retry_at": at}
    assert retry.details == {"rules": ["jitter"], "after": {"a": "x"}, **own}
    assert (ended.details["retry"], ended.details["retry_at"], ended.details["cpu"]) == (retry.run_id, at, 1)


@pytest.mark.parametrize(
    ("timeout", "deadline", "expected", "is_deadline"),
    [
        (None, None, None, None),
        (5.0, None, 5.0, None),
        (5.0, 60.0, 5.0, None),
        (90.0, 60.0, 60.0, True),
        (None, 60.0, 60.0, True),
    ],
)
def test_an_attempt_has_the_time_that_is_left_to_the_deadline(timeout, deadline, expected, is_deadline):
    job, run = within_deadline(a_job(timeout_seconds=timeout, deadline_seconds=deadline), a_run(), NOON)

    assert (job.timeout_seconds, run.details.get("deadline")) == (expected, is_deadline)


def test_a_later_attempt_has_less_time():
    job = a_job(retries=1, deadline_seconds=60.0, retry_delay_seconds=20.0)
    _, retry = next_row(job, a_run(), failed(a_run(started_at=NOON), at=NOON + 10 * SECOND), NOON + 10 * SECOND)

    assert within_deadline(job, retry, retry_at_of(retry))[0].timeout_seconds == 30.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": Status.CANCELLED}, Status.FAILED),
        ({"status": Status.SKIPPED}, Status.FAILED),
        ({"status": Status.TIMED_OUT}, Status.TIMED_OUT),
        ({"status": Status.SUCCESS, "started_at": NOON}, Status.SUCCESS),
        ({"status": Status.CANCELLED, "started_at": NOON}, Status.CANCELLED),
        ({"status": Status.CANCELLED, "origin": Origin.SCHEDULE}, Status.CANCELLED),
        ({"status": Status.SKIPPED, "origin": Origin.SCHEDULE}, Status.SKIPPED),
    ],
)
def test_a_retry_that_was_never_started_leaves_the_failure_before_it(changes, expected):
    assert outcome_of(a_run(**{"origin": Origin.RETRY, **changes})) is expected


def test_a_clock_that_was_ahead_at_the_start_does_not_extend_a_deadline():
    job, given = a_job(retries=1, deadline_seconds=3600.0), a_run(started_at=NOON + timedelta(days=400))
    _, retry = next_row(job, given, failed(given), NOON)

    assert retry.details["deadline_at"] == to_text(NOON + timedelta(hours=1))


def test_a_later_occurrence_supersedes_a_retry_and_nothing_else_does():
    retry = a_run(origin=Origin.RETRY, attempt=2)
    later = NOON + timedelta(hours=1)

    assert is_superseded(retry, a_run(at=later))
    assert not is_superseded(retry, a_run(at=later, origin=Origin.MANUAL, scheduled_at=None))
    assert not is_superseded(retry, a_run(at=NOON - timedelta(hours=1)))
    assert not is_superseded(a_run(), a_run(at=later))
    assert not is_superseded(replace(retry, scheduled_at=None), a_run(at=later))


def abandoned(run):
    return finish(run, Result(Status.ABANDONED), NOON, None)


def test_what_was_abandoned_is_run_again_at_once_when_that_is_wanted_and_counts_as_no_retry():
    job, first = a_job(reruns_abandoned=True, retries=1), a_run()
    over, second = next_row(job, first, abandoned(first), NOON)
    _, third = next_row(job, second, failed(second), NOON)

    assert over.details["retry"] == second.run_id
    assert (second.attempt, retry_at_of(second), second.details["retry_number"]) == (2, NOON, 0)
    assert (third.attempt, retry_at_of(third), third.details["retry_number"]) == (3, NOON + 10 * SECOND, 1)


def test_reruns_of_a_job_that_is_always_abandoned_are_limited():
    job, rows = a_job(reruns_abandoned=True), [a_run()]
    while (following := next_row(job, rows[-1], abandoned(rows[-1]), NOON)[1]) is not None:
        rows.append(following)

    assert len(rows) == 1 + MOST_RERUNS


def test_what_was_abandoned_stays_so_when_nothing_is_said():
    assert next_row(a_job(retries=3), a_run(), abandoned(a_run()), NOON)[1] is None
