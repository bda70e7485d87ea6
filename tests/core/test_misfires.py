"""The rules: each due time ends in exactly one place."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.core.misfires import (
    BLACKOUT,
    MOST_DUE,
    PAUSED,
    Due,
    Gap,
    decide_due,
    decided_after_step_back,
    due_of,
    follows,
    is_wanted,
    most_needed,
    pass_all,
    pause_is_over,
    spread_out,
)
from schedulerd.core.models import CatchUp, Status
from schedulerd.core.trigger import After, Occurrence, When
from schedulerd.triggers.factory import CronTrigger, IntervalTrigger, trigger_from
from tests.support.builders import NOON, a_job, due_at

MINUTE = timedelta(minutes=1)
LATE = [NOON - 3 * MINUTE, NOON - 2 * MINUTE, NOON - MINUTE]


def times(starts):
    return [start.scheduled_at for start in starts]


def test_one_time_on_time_is_started():
    decision = decide_due(a_job(), due_at(NOON), NOON)

    assert times(decision.start) == [NOON]
    assert decision.passed == ()


def test_of_several_only_the_newest_starts_and_the_others_are_one_missed_row():
    decision = decide_due(a_job(), due_at(*LATE), NOON)

    assert times(decision.start) == [LATE[-1]]
    (missed,) = decision.passed
    assert missed.gap == Gap(LATE[0], LATE[1], 2)
    assert missed.status is Status.MISSED


def test_latest_starts_the_newest_however_late_it_is():
    decision = decide_due(a_job(misfire_grace_seconds=1), due_at(*LATE), NOON)

    assert decision.start[0].is_misfire


def test_latest_starts_nothing_that_is_older_than_catch_up_age():
    decision = decide_due(a_job(catch_up_age_seconds=30), due_at(*LATE), NOON)

    assert decision.start == ()
    assert sum(passed.gap.count for passed in decision.passed) == 3
    assert "catch_up_age of 30.0s" in decision.passed[-1].why


def test_none_starts_nothing_that_is_later_than_the_grace():
    decision = decide_due(a_job(catch_up=CatchUp.NONE, misfire_grace_seconds=30), due_at(*LATE), NOON)

    assert decision.start == ()
    assert [passed.gap.count for passed in decision.passed] == [3]


def test_none_still_starts_what_is_within_the_grace():
    decision = decide_due(a_job(catch_up=CatchUp.NONE, misfire_grace_seconds=90), due_at(*LATE), NOON)

    assert times(decision.start) == [LATE[-1]]


def test_all_starts_one_after_the_other():
    job = a_job(catch_up=CatchUp.ALL)
    decision = decide_due(job, due_at(*LATE), NOON)

    assert times(decision.start) == [LATE[0]]
    assert times(decision.later) == LATE[1:]


def test_all_without_spacing_starts_every_one_in_order():
    decision = decide_due(a_job(catch_up=CatchUp.ALL, catch_up_spacing_seconds=0), due_at(*LATE), NOON)

    assert times(decision.start) == LATE
    assert decision.later == ()


def test_all_is_bounded_by_the_newest_catch_up_limit():
    job = a_job(catch_up=CatchUp.ALL, catch_up_limit=2, catch_up_spacing_seconds=0)
    decision = decide_due(job, due_at(*LATE, earlier=Gap(NOON - 9 * MINUTE, NOON - 4 * MINUTE, 6)), NOON)

    assert times(decision.start) == LATE[1:]
    (missed,) = decision.passed
    assert missed.gap == Gap(NOON - 9 * MINUTE, LATE[0], 7)
    assert missed.why == "more than its catch_up_limit of 2"


def test_what_lies_in_a_blackout_is_skipped_and_says_so():
    found = Due([Occurrence(LATE[0], LATE[0], (), "blackout 11:50..12:00"), Occurrence(LATE[1], LATE[1])])
    decision = decide_due(a_job(), found, NOON)

    assert times(decision.start) == [LATE[1]]
    (skipped,) = decision.passed
    assert (skipped.status, skipped.why, skipped.window) == (Status.SKIPPED, BLACKOUT, "blackout 11:50..12:00")
    assert str(skipped) == "in blackout 11:50..12:00"


def test_a_blackout_after_it_does_not_supersede_what_may_start():
    found = Due([Occurrence(LATE[0], LATE[0]), Occurrence(LATE[1], LATE[1], (), "blackout x")])

    assert times(decide_due(a_job(), found, NOON).start) == [LATE[0]]


def test_a_delay_by_jitter_does_not_count_as_late():
    found = Due([Occurrence(NOON - 90 * MINUTE, NOON - MINUTE)])

    assert not decide_due(a_job(), found, NOON).start[0].is_misfire


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), min_size=1, max_size=50, unique_by=lambda pair: pair[0]),
    st.sampled_from(CatchUp),
    st.integers(0, 10**6),
    st.integers(0, 5000),
    st.integers(1, 60),
    st.sampled_from([0, 1000]),
    st.sampled_from([0, 1]),
)
def test_every_due_time_is_in_exactly_one_place(ages, catch_up, grace, earlier, limit, age, spacing):
    job = a_job(
        catch_up=catch_up, misfire_grace_seconds=grace, catch_up_limit=limit, catch_up_age_seconds=age,
        catch_up_spacing_seconds=spacing,
    )  # fmt: skip
    found = [
        Occurrence(at, at, (), "blackout" if is_dark else None)
        for at, is_dark in ((NOON - timedelta(seconds=seconds), is_dark) for seconds, is_dark in sorted(ages, reverse=True))
    ]
    gap = Gap(found[0].scheduled_at - MINUTE * earlier, found[0].scheduled_at - MINUTE, earlier) if earlier else None

    decision = decide_due(job, Due(found, gap), NOON)

    passed = sum(one.gap.count for one in decision.passed)
    assert len(decision.start) + passed + len(decision.later) == len(found) + earlier
    started = times(decision.start)
    spans = [(one.gap.first, one.gap.last) for one in decision.passed]
    assert not [at for at in started for first, last in spans if first <= at <= last]
    assert spans == sorted(spans)
    if decision.later:
        assert max([*started, *(last for _, last in spans)], default=NOON) < decision.later[0].scheduled_at


def test_everything_due_of_a_paused_job_is_one_skipped_row():
    decision = pass_all(due_at(*LATE, earlier=Gap(NOON - 9 * MINUTE, NOON - 4 * MINUTE, 6)), Status.SKIPPED, PAUSED)

    (skipped,) = decision.passed
    assert skipped.gap == Gap(NOON - 9 * MINUTE, LATE[-1], 9)
    assert str(skipped).startswith("the job is paused (9 occurrences")


def test_due_are_those_after_and_up_to_now():
    due = due_of(IntervalTrigger(60), NOON - 3 * MINUTE, NOON)

    assert times(due.occurrences) == [NOON - 2 * MINUTE, NOON - MINUTE, NOON]
    assert due.earlier is None


def test_a_week_of_minutes_is_counted_exactly_without_walking_it():
    week = timedelta(days=7)
    due = due_of(CronTrigger("* * * * *"), NOON - week, NOON)

    assert len(due.occurrences) == MOST_DUE
    assert due.occurrences[-1].scheduled_at == NOON
    assert due.earlier == Gap(NOON - week + MINUTE, due.occurrences[0].scheduled_at - MINUTE, 7 * 1440 - MOST_DUE)


def test_a_gap_with_nothing_at_its_end_still_has_its_newest_times():
    monday, sunday = datetime(2026, 3, 9, 18, tzinfo=UTC), datetime(2026, 3, 15, 12, tzinfo=UTC)
    due = due_of(CronTrigger("* 8-17 * * mon-fri"), monday, sunday, most=1)

    assert times(due.occurrences) == [datetime(2026, 3, 13, 17, 59, tzinfo=UTC)]
    assert due.earlier == Gap(datetime(2026, 3, 10, 8, tzinfo=UTC), datetime(2026, 3, 13, 17, 58, tzinfo=UTC), 4 * 600 - 1)


def test_what_starts_later_than_now_is_not_due_and_hides_nothing_before_it():
    trigger = trigger_from({"cron": "0 0 * * *", "spread": "8h"}, seed="j", host="h4")
    delay = trigger.occurrence_at(datetime(2026, 3, 10, tzinfo=UTC)).start_at - datetime(2026, 3, 10, tzinfo=UTC)
    assert delay > 30 * MINUTE
    due = due_of(trigger, datetime(2026, 3, 6, 1, tzinfo=UTC), datetime(2026, 3, 10, 0, 30, tzinfo=UTC), 1)

    assert times(due.occurrences) == [datetime(2026, 3, 9, tzinfo=UTC)]
    assert due.earlier.count == 2


@given(st.sampled_from(["*/7 * * * *", "30 2 * * *", "*/20 1-3 * * sun"]), st.integers(1, 30), st.integers(0, 3000))
def test_what_is_listed_and_what_is_counted_are_all_there_is(expression, most, hours):
    trigger, now = CronTrigger(expression, "Europe/Rome"), datetime(2026, 10, 26, 12, tzinfo=UTC)
    after = now - timedelta(hours=hours)
    due = due_of(trigger, after, now, most)

    walked = []
    while (at := trigger.next_after(walked[-1] if walked else after)) is not None and at <= now:
        walked.append(at)
    assert times(due.occurrences) == walked[-most:]
    assert (due.earlier.count if due.earlier else 0) == max(0, len(walked) - most)
    if due.earlier:
        assert (due.earlier.first, due.earlier.last) == (walked[0], walked[-most - 1])


def test_only_who_catches_up_all_or_has_blackouts_looks_at_many():
    assert most_needed(a_job(every="1m")) == 1
    assert most_needed(a_job(every="1m", catch_up=CatchUp.ALL, catch_up_limit=7)) == 7
    assert most_needed(a_job(every="1m", blackout="sat..sun")) == MOST_DUE


def test_overdue_jobs_are_spread_but_a_few_hardly_wait():
    assert spread_out(3, 60) == pytest.approx([0, 0.1, 0.2])
    assert spread_out(500, 60)[-1] == pytest.approx(49.9)
    assert 59 < spread_out(10_000, 60)[-1] < 60
    assert spread_out(0, 60) == []
    assert spread_out(2, 0) == [0, 0]


HOUR = timedelta(hours=1)


def test_after_a_step_back_fixed_times_are_considered_from_now_on():
    assert decided_after_step_back(CronTrigger("30 2 * * *"), NOON, NOON + MINUTE, NOON - HOUR) == NOON - HOUR


def test_after_a_step_back_a_rhythm_goes_on_but_not_too_soon():
    trigger = IntervalTrigger(3600)

    assert decided_after_step_back(trigger, NOON, NOON + 50 * MINUTE, NOON - 10 * MINUTE) == NOON - 10 * MINUTE
    assert decided_after_step_back(trigger, NOON, NOON + MINUTE, NOON - MINUTE) == NOON


def test_a_small_step_back_repeats_nothing():
    trigger = IntervalTrigger(60)
    decided = decided_after_step_back(trigger, NOON, NOON + timedelta(seconds=1), NOON - timedelta(seconds=2))

    assert trigger.next_after(decided) == NOON + MINUTE


def test_a_step_back_before_the_first_time_decides_nothing_that_was_not():
    trigger = CronTrigger("7 * * * *")

    assert decided_after_step_back(trigger, NOON, NOON, NOON - timedelta(seconds=2)) == NOON


@given(st.integers(1, 7200), st.integers(3, 20_000), st.integers(0, 7199))
def test_after_a_step_back_a_rhythm_is_never_silent_for_two_periods(period, step, since):
    trigger = IntervalTrigger(float(period))
    decided = trigger.next_after(NOON)
    before = decided + timedelta(seconds=since % period)
    now = before - timedelta(seconds=step)

    following = trigger.next_after(decided_after_step_back(trigger, decided, before, now))
    silence = (before - decided) + (following - now)

    assert timedelta(seconds=period / 2) <= silence
    assert silence < timedelta(seconds=period * 2)


@given(st.integers(1, 3600), st.integers(1, 9))
def test_a_step_back_by_whole_periods_leaves_the_rhythm_as_it_was(period, periods):
    trigger = IntervalTrigger(float(period))
    decided = trigger.next_after(NOON)
    before = decided + timedelta(seconds=period / 3)
    now = before - timedelta(seconds=period * periods)

    following = trigger.next_after(decided_after_step_back(trigger, decided, before, now))

    assert (before - decided) + (following - now) == timedelta(seconds=period)


def test_what_counts_from_the_end_of_a_run_is_moved_with_the_clock():
    trigger = trigger_from({"every": "1h", "after": "finish"})

    assert decided_after_step_back(trigger, NOON, NOON + MINUTE, NOON - HOUR) == NOON - HOUR - MINUTE


def test_a_step_that_reaches_no_decided_time_changes_nothing():
    assert decided_after_step_back(IntervalTrigger(60), NOON, NOON + 3 * HOUR, NOON + HOUR) == NOON


def test_any_of_several_ends_is_enough_or_all_are_needed():
    any_one, both = After(("a", "b"), When.SUCCESS), After(("a", "b"), When.SUCCESS, needs_all=True)

    assert follows(any_one, {"b": NOON}) == NOON
    assert follows(both, {"b": NOON}) is None
    assert follows(both, {"b": NOON, "a": NOON - MINUTE}) == NOON


@pytest.mark.parametrize(
    ("when", "wanted"),
    [
        (When.SUCCESS, {Status.SUCCESS}),
        (When.FAILURE, {Status.FAILED, Status.TIMED_OUT, Status.ABANDONED}),
        (When.ALWAYS, {Status.SUCCESS, Status.FAILED, Status.TIMED_OUT, Status.ABANDONED, Status.CANCELLED}),
    ],
)
def test_success_failure_and_always_mean_what_they_say(when, wanted):
    ended = {Status.SUCCESS, Status.FAILED, Status.TIMED_OUT, Status.ABANDONED, Status.CANCELLED}

    assert {status for status in ended if is_wanted(After(("a",), when), status)} == wanted


def test_a_pause_without_an_end_is_never_over():
    assert not pause_is_over(None, NOON)
    assert not pause_is_over(NOON + MINUTE, NOON)
    assert pause_is_over(NOON, NOON)
