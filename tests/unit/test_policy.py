"""The rules: each due time ends in exactly one place."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.model import CatchUp, Overlap
from schedulerd.policy import MOST_DUE, MOST_QUEUED, Admission, Due, admit, decide_due, due_times, expired, pause_is_over
from schedulerd.triggers import CronTrigger, IntervalTrigger
from tests.support.builders import NOON, a_job

MINUTE = timedelta(minutes=1)
LATE = [NOON - 3 * MINUTE, NOON - 2 * MINUTE, NOON - MINUTE]


def test_one_time_on_time_is_started():
    decision = decide_due(a_job(), Due([NOON]), NOON)

    assert [start.scheduled_at for start in decision.start] == [NOON]
    assert decision.missed is None


def test_of_several_only_the_newest_starts_and_the_others_are_one_missed_row():
    decision = decide_due(a_job(), Due(LATE), NOON)

    assert [start.scheduled_at for start in decision.start] == [LATE[-1]]
    assert (decision.missed.first, decision.missed.last, decision.missed.count) == (LATE[0], LATE[1], 2)


def test_latest_starts_the_newest_however_late_it_is():
    decision = decide_due(a_job(misfire_grace_seconds=1), Due(LATE), NOON)

    assert decision.start[0].is_misfire


def test_none_starts_nothing_that_is_later_than_the_grace():
    decision = decide_due(a_job(catch_up=CatchUp.NONE, misfire_grace_seconds=30), Due(LATE), NOON)

    assert decision.start == ()
    assert decision.missed.count == 3


def test_none_still_starts_what_is_within_the_grace():
    decision = decide_due(a_job(catch_up=CatchUp.NONE, misfire_grace_seconds=90), Due(LATE), NOON)

    assert [start.scheduled_at for start in decision.start] == [LATE[-1]]


def test_all_starts_every_one_in_order():
    decision = decide_due(a_job(catch_up=CatchUp.ALL), Due(LATE), NOON)

    assert [start.scheduled_at for start in decision.start] == LATE


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=50, unique=True),
    st.sampled_from(CatchUp),
    st.integers(0, 10**6),
    st.integers(0, 5000),
)
def test_every_due_time_is_in_exactly_one_place(ages, catch_up, grace, earlier):
    times = [NOON - timedelta(seconds=age) for age in sorted(ages, reverse=True)]
    due = Due(times, earlier, times[0] - MINUTE if earlier else None)

    decision = decide_due(a_job(catch_up=catch_up, misfire_grace_seconds=grace), due, NOON)

    missed = decision.missed.count if decision.missed else 0
    assert len(decision.start) + missed == len(times) + earlier
    started = [start.scheduled_at for start in decision.start]
    assert started == times[len(times) - len(started) :]
    if decision.missed and started and not earlier:
        assert decision.missed.last < started[0]


def test_due_times_are_those_after_and_up_to_now():
    due = due_times(IntervalTrigger(60), NOON - 3 * MINUTE, NOON)

    assert list(due.times) == [NOON - 2 * MINUTE, NOON - MINUTE, NOON]
    assert due.earlier == 0


def test_a_week_of_minutes_is_counted_without_walking_it():
    week = timedelta(days=7)
    due = due_times(CronTrigger("* * * * *"), NOON - week, NOON)

    assert len(due.times) <= MOST_DUE
    assert due.times[-1] == NOON
    assert due.first == NOON - week + MINUTE
    assert len(due.times) + due.earlier == pytest.approx(7 * 1440, abs=2)


def test_a_gap_with_nothing_at_its_end_still_has_its_newest_times():
    monday, sunday = datetime(2026, 3, 9, 18, tzinfo=UTC), datetime(2026, 3, 15, 12, tzinfo=UTC)
    due = due_times(CronTrigger("* 8-17 * * mon-fri"), monday, sunday)

    assert 1 <= len(due.times) <= MOST_DUE
    assert due.times[-1] == datetime(2026, 3, 13, 17, 59, tzinfo=UTC)
    assert due.first == datetime(2026, 3, 10, 8, tzinfo=UTC)
    assert due.earlier > 0


@pytest.mark.parametrize(
    ("overlap", "running", "queued", "expected"),
    [
        (Overlap.SKIP, 0, 0, Admission.START),
        (Overlap.SKIP, 1, 0, Admission.SKIP),
        (Overlap.ALLOW, 5, 0, Admission.START),
        (Overlap.QUEUE, 0, 0, Admission.START),
        (Overlap.QUEUE, 1, 0, Admission.QUEUE),
        (Overlap.QUEUE, 0, 1, Admission.QUEUE),
        (Overlap.QUEUE, 1, MOST_QUEUED, Admission.SKIP),
    ],
)
def test_the_overlap_policy_admits_queues_or_skips(overlap, running, queued, expected):
    assert admit(overlap, running, queued) is expected


def test_a_pause_without_an_end_is_never_over():
    assert not pause_is_over(None, NOON)
    assert not pause_is_over(NOON + MINUTE, NOON)
    assert pause_is_over(NOON, NOON)


DAYS = [datetime(2026, 1, 1, 3, tzinfo=UTC) + timedelta(days=day) for day in range(100)]


def test_without_keep_every_backup_stays():
    assert expired(DAYS, {}) == []


def test_daily_and_weekly_keep_the_newest_of_each_day_and_week():
    kept = set(DAYS) - set(expired(DAYS, {"daily": 3, "weekly": 2}))

    assert kept == {DAYS[-1], DAYS[-2], DAYS[-3], datetime(2026, 4, 5, 3, tzinfo=UTC)}


@given(
    st.lists(st.datetimes(timezones=st.just(UTC)), min_size=1, max_size=60, unique=True),
    st.dictionaries(st.sampled_from(["last", "hourly", "daily", "weekly", "monthly", "yearly"]), st.integers(0, 5)),
)
def test_the_newest_backup_always_stays(made, keep):
    gone = expired(made, keep)

    assert max(made) not in gone
    assert set(gone) <= set(made)
