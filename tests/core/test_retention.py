"""Retention: what goes is old or too much, and what is needed never goes."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schedulerd.core.models import ENDED, UNFINISHED, Origin, Status
from schedulerd.core.retention import (
    FOLLOWED_KEPT,
    NeededRows,
    RetentionRow,
    RetentionRules,
    StoredOutput,
    claims_kept,
    expired,
    may_go_on,
    outputs_to_delete,
    surplus_bytes,
)  # fmt: skip
from schedulerd.store.sequences import SequenceGenerator
from tests.support.builders import NOON, a_job, a_run

DAY = timedelta(days=1)
FAILURES = (Status.FAILED, Status.TIMED_OUT, Status.ABANDONED)


@st.composite
def histories(draw):
    """Rows of a job in the order of their ids, about two months of them."""
    ages = sorted(draw(st.lists(st.integers(0, 60 * 24), max_size=30)), reverse=True)
    rows = []
    for number, hours in enumerate(ages):
        status = draw(st.sampled_from(sorted(Status)))
        finished_at = None if status in UNFINISHED else NOON - timedelta(hours=hours)
        rows.append(RetentionRow(f"{number:03}", Status(status), draw(st.sampled_from(sorted(Origin))), finished_at))
    return rows


def newest(rows, holds):
    return max((row.run_id for row in rows if holds(row)), default=None)


def needed_of(rows, rules):
    finished = sorted((row.run_id for row in rows if row.status not in UNFINISHED), reverse=True)
    count = rules.runs_per_job
    return NeededRows(
        newest=newest(rows, lambda row: True),
        occurrence=newest(rows, lambda row: row.origin in (Origin.SCHEDULE, Origin.CATCH_UP)),
        result=newest(rows, lambda row: row.status in ENDED),
        failure=newest(rows, lambda row: row.status in FAILURES),
        success=newest(rows, lambda row: row.status is Status.SUCCESS),
        oldest_kept=(0, finished[count - 1]) if count is not None and len(finished) > count else None,
    )


RULES = st.builds(
    RetentionRules,
    older_than=st.none() | st.integers(0, 50).map(lambda days: days * DAY),
    runs_per_job=st.none() | st.integers(1, 20),
    keeps_last_failure=st.booleans(),
    keeps_last_success=st.booleans(),
    claims_kept=st.integers(0, 3).map(lambda days: days * DAY),
)


@given(rows=histories(), rules=RULES)
def test_needed_rows_are_never_deleted(rows, rules):
    needed = needed_of(rows, rules)
    gone = set(expired(rows, needed, rules, NOON))

    by_id = {row.run_id: row for row in rows}
    assert not [run_id for run_id in gone if by_id[run_id].status in UNFINISHED]
    assert not gone & {needed.newest, needed.occurrence, needed.result}
    assert not rules.keeps_last_failure or needed.failure not in gone
    assert not rules.keeps_last_success or needed.success not in gone
    assert not [
        run_id for run_id in gone
        if by_id[run_id].origin is Origin.AFTER and by_id[run_id].finished_at >= NOON - FOLLOWED_KEPT
    ]  # fmt: skip
    planned = [by_id[run_id] for run_id in gone if by_id[run_id].origin in (Origin.SCHEDULE, Origin.CATCH_UP)]
    assert not [row for row in planned if row.finished_at >= NOON - rules.claims_kept]


def test_the_occurrences_of_a_job_stay_while_they_could_be_started_late_and_a_day_more():
    assert claims_kept(a_job(misfire_grace_seconds=600.0)) == DAY + timedelta(minutes=10)
    assert claims_kept(a_job(misfire_grace_seconds=600.0, catch_up_age_seconds=7200.0)) == DAY + timedelta(hours=2)
    assert claims_kept(None) == timedelta()  # a job that is gone has none to start


@given(rows=histories(), rules=RULES)
def test_expired_rows_are_too_old_or_too_many_and_without_rules_there_are_none(rows, rules):
    gone = set(expired(rows, needed_of(rows, rules), rules, NOON))
    kept_by_count = [row.run_id for row in rows if row.status not in UNFINISHED][-(rules.runs_per_job or 0) :]

    for row in rows:
        if row.run_id in gone:
            is_old = rules.older_than is not None and row.finished_at < NOON - rules.older_than
            assert is_old or (rules.runs_per_job is not None and row.run_id not in kept_by_count)
    assert not gone or rules.older_than is not None or rules.runs_per_job is not None


@given(rows=histories(), rules=RULES)
def test_what_is_left_is_as_much_as_the_rules_allow_and_what_is_needed(rows, rules):
    needed = needed_of(rows, rules)
    gone = set(expired(rows, needed, rules, NOON))
    left = [
        row for row in rows if row.run_id not in gone and row.status not in UNFINISHED and row.origin is not Origin.AFTER
        and (row.origin not in (Origin.SCHEDULE, Origin.CATCH_UP) or row.finished_at < NOON - rules.claims_kept)
    ]  # fmt: skip

    beyond = [row for row in left if needed.oldest_kept is not None and row.position < needed.oldest_kept]
    assert {row.run_id for row in beyond} <= needed.stays(rules)
    again = [row for row in rows if row.run_id not in gone]
    assert expired(again, needed_of(again, rules), rules, NOON) == []


def test_rows_of_a_clock_that_was_behind_are_no_older_than_what_was_recorded_before_them():
    before, wrong = a_run(at=NOON - DAY), a_run(at=datetime(1970, 1, 1, tzinfo=UTC))
    runs = list(map(SequenceGenerator().numbered, (before, wrong)))
    rows = [RetentionRow(run.run_id, Status.SUCCESS, Origin.MANUAL, run.queued_at, run.sequence) for run in runs]
    rules = RetentionRules(older_than=30 * DAY)

    assert expired(rows, NeededRows(), rules, NOON) == []
    assert expired(rows, NeededRows(), rules, NOON + 30 * DAY) == [before.run_id, wrong.run_id]


def test_a_page_of_rows_of_a_clock_that_was_ahead_does_not_hide_those_behind_it():
    page = [RetentionRow(str(number), Status.SUCCESS, Origin.MANUAL, NOON + 400 * DAY) for number in range(10)]

    assert may_go_on(page, NeededRows(), RetentionRules(older_than=30 * DAY), NOON)
    assert not may_go_on(page, NeededRows(), RetentionRules(older_than=30 * DAY), NOON + 401 * DAY)


SIZES = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 100), st.booleans()), max_size=30)


@given(sizes=SIZES, limit=st.integers(0, 5000), free=st.integers(0, 5000), min_free=st.integers(0, 5000))
def test_outputs_are_deleted_oldest_first_and_never_those_of_running_runs(sizes, limit, free, min_free):
    rules = RetentionRules(outputs_size=limit, min_free=min_free)
    outputs = [
        StoredOutput(str(number), size, NOON - hours * timedelta(hours=1), is_running)
        for number, (size, hours, is_running) in enumerate(sizes)
    ]
    total = sum(each.size_bytes for each in outputs)
    surplus = surplus_bytes(total, free, rules)
    gone = outputs_to_delete(outputs, rules, NOON, surplus)

    assert not [each for each in gone if each.is_running]
    left = [each for each in outputs if each not in gone and not each.is_running]
    freed = sum(each.size_bytes for each in gone)
    assert not left or (total - freed <= limit and free + freed >= min_free)
    assert not gone or sum(each.size_bytes for each in gone[:-1]) < surplus
    assert all(old.written_at <= young.written_at for old in gone for young in left)


def test_outputs_that_are_too_old_go_though_there_is_room():
    old, young = StoredOutput("a", 10, NOON - 9 * DAY), StoredOutput("b", 10, NOON - DAY)

    assert outputs_to_delete([young, old], RetentionRules(outputs_older_than=7 * DAY), NOON, 0) == [old]
