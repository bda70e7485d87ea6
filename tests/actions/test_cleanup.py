"""Cleanup on a real store and real files: what goes, what stays, and that a dry run says the same and changes nothing."""

import os
from datetime import timedelta

import pytest

from schedulerd.actions.cleanup import Cleaning
from schedulerd.core.models import Origin, Result, Status, finish
from schedulerd.core.retention import RetentionRules
from schedulerd.process.output import OutputFolder
from tests.support.builders import NOON, a_run

DAY = timedelta(days=1)


@pytest.fixture
def output(tmp_path):
    return OutputFolder(str(tmp_path / "output"))


def ran(store, output, job_id="job", days_ago=1.0, status=Status.SUCCESS, size=0, **changes):
    """Enter a run that ended some days ago, with its output when it has a size."""
    at = NOON - days_ago * DAY
    run = a_run(job_id, at=at, **changes)
    store.record([run]).result(10)
    if status is not Status.RUNNING:
        store.finish([finish(run, Result(status), at, 1.0)]).result(10)
    if size:
        write(output, run.run_id, size, at)
    return run


def write(output, run_id, size, at=NOON):
    path = output.make(run_id)
    with open(path, "wb") as file:
        file.write(b"x" * size)
    os.utime(path, (at.timestamp(), at.timestamp()))


def clean(store, output, **rules):
    """Clean for a trial and then in earnest, which must come to the same; return what went."""
    rules = RetentionRules(**rules)
    before = {run.run_id for run in store.recent(10_000)}
    trial = Cleaning(store, output, rules, NOON, acts=False).clean()
    assert {run.run_id for run in store.recent(10_000)} == before
    plan = Cleaning(store, output, rules, NOON, acts=True, batch=3).clean()
    assert trial == plan
    return plan


def left(store, job_id="job"):
    return {run.run_id for run in store.history(job_id, 10_000)}


def test_old_runs_go_with_their_output_and_the_last_failure_stays(store, output):
    runs = [ran(store, output, days_ago=100 - number, size=5000) for number in range(20)]
    failed = ran(store, output, days_ago=99.5, status=Status.FAILED, size=5000)
    young = ran(store, output, days_ago=1)
    plan = clean(store, output, older_than=90 * DAY)

    assert left(store) == {run.run_id for run in runs[10:]} | {failed.run_id, young.run_id}
    assert (plan.runs, plan.outputs, plan.freed_bytes) == (10, 10, 10 * 8192)
    assert output.size(failed.run_id) == 5000
    assert output.size(runs[0].run_id) == 0


def test_of_each_job_only_so_many_stay_and_what_runs_is_not_counted(store, output):
    ids = [ran(store, output, days_ago=20 - number).run_id for number in range(10)]
    running = ran(store, output, days_ago=30, status=Status.RUNNING)
    other = [ran(store, output, "other", days_ago=20 - number).run_id for number in range(3)]
    clean(store, output, runs_per_job=4)

    assert left(store) == {*ids[-4:], running.run_id}
    assert left(store, "other") == set(other)


def test_the_last_success_of_a_job_that_fails_since_stays_unless_told_otherwise(store, output):
    good = ran(store, output, days_ago=200)
    for number in range(5):
        ran(store, output, days_ago=100 - number, status=Status.FAILED)
    clean(store, output, older_than=50 * DAY)
    assert good.run_id in left(store)

    clean(store, output, older_than=50 * DAY, keeps_last_success=False)
    assert good.run_id not in left(store)


def test_a_job_that_is_no_longer_there_is_cleaned_too_up_to_its_newest_row(store, output):
    ids = [ran(store, output, "gone", days_ago=200 - number).run_id for number in range(5)]
    clean(store, output, older_than=90 * DAY, keeps_last_failure=False)

    assert left(store, "gone") == {ids[-1]}


def test_more_rows_than_a_page_go_in_one_cleaning(store, output, monkeypatch):
    monkeypatch.setattr("schedulerd.actions.cleanup.PAGE", 4)
    runs = [ran(store, output, days_ago=100 - number / 100, size=10 * (number % 2)) for number in range(50)]
    plan = clean(store, output, older_than=90 * DAY)

    assert (plan.runs, plan.outputs) == (49, 24)
    assert left(store) == {runs[-1].run_id}


def test_outputs_go_oldest_first_until_all_together_are_small_enough_and_their_rows_stay(store, output):
    runs = [ran(store, output, days_ago=10 - number, size=8192) for number in range(8)]
    running = ran(store, output, days_ago=20, status=Status.RUNNING, size=8192, origin=Origin.MANUAL, scheduled_at=None)
    plan = clean(store, output, outputs_size=5 * 8192)

    assert (plan.runs, plan.outputs, plan.freed_bytes) == (0, 4, 4 * 8192)
    assert [output.size(run.run_id) > 0 for run in runs] == [False] * 4 + [True] * 4
    assert output.size(running.run_id) == 8192
    assert len(left(store)) == 9


def test_outputs_of_a_clock_that_was_ahead_are_not_the_newest(store, output):
    ahead = ran(store, output, days_ago=-400, size=5000)
    true = ran(store, output, days_ago=1, size=5000)
    clean(store, output, outputs_size=8192)

    assert (output.size(ahead.run_id), output.size(true.run_id)) == (0, 5000)


def test_outputs_of_today_stay_while_a_clock_that_has_come_to_it_is_doubted(store, output):
    old, today = ran(store, output, days_ago=10, size=5000), ran(store, output, days_ago=0, size=5000)
    rules = RetentionRules(outputs_size=8192)
    Cleaning(store, output, rules, NOON - 9 * DAY, acts=True, wall=NOON).clean()

    assert (output.size(old.run_id), output.size(today.run_id)) == (0, 5000)


def test_outputs_go_when_they_are_old_or_when_their_disk_is_full(store, output, monkeypatch):
    old, middle, young = (ran(store, output, days_ago=days, size=4096) for days in (9, 5, 1))
    clean(store, output, outputs_older_than=7 * DAY)
    assert [output.size(run.run_id) for run in (old, middle, young)] == [0, 4096, 4096]

    monkeypatch.setattr("schedulerd.actions.cleanup._free", lambda _folder: 10_000 - output.size_of_all())
    clean(store, output, min_free=3000)
    assert [output.size(run.run_id) for run in (middle, young)] == [0, 4096]


def test_outputs_without_rows_go_when_they_are_a_day_old(store, output):
    unknown_old, unknown_young = a_run(at=NOON - 3 * DAY), a_run(at=NOON - timedelta(hours=3))
    known = ran(store, output, days_ago=3, size=100)
    write(output, unknown_old.run_id, 100, unknown_old.queued_at)
    write(output, unknown_young.run_id, 100, unknown_young.queued_at)
    theirs = os.path.join(output.root, "2026-03-07", "notes.txt")
    with open(theirs, "w") as file:
        file.write("not ours")
    plan = clean(store, output)

    assert plan.outputs == 1
    assert [output.size(run.run_id) for run in (unknown_old, unknown_young, known)] == [0, 100, 100]
    assert os.path.exists(theirs)


def test_a_cleaning_that_is_stopped_has_done_whole_batches(store, output):
    runs = [ran(store, output, days_ago=100 - number, size=10) for number in range(9)]
    turns = iter([None, None])

    def check():
        try:
            next(turns)
        except StopIteration:
            raise InterruptedError from None

    cleaning = Cleaning(store, output, RetentionRules(older_than=50 * DAY), NOON, acts=True, batch=3, check=check)
    with pytest.raises(InterruptedError):
        cleaning.clean()

    assert left(store) == {run.run_id for run in runs[6:]}
    assert [output.size(run.run_id) for run in runs] == [0] * 6 + [10] * 3


def test_outputs_that_go_with_their_rows_count_for_the_size_of_all_in_a_trial_as_well(store, output):
    for number in range(11):
        ran(store, output, days_ago=20 - number, size=4096)
    plan = clean(store, output, runs_per_job=5, outputs_size=6 * 4096)

    assert (plan.runs, plan.outputs, plan.freed_bytes) == (6, 6, 6 * 4096)
