"""What every store promises; a backend joins by adding itself to `KINDS` in conftest.py."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedulerd.core.errors import StoreError
from schedulerd.core.models import ENDED, JobRecord, Origin, Pause, Result, Status, finish, new_run_id
from schedulerd.core.retention import NeededRows, RetentionRow
from schedulerd.store.protocol import DailyFigures
from tests.support.builders import NOON, a_run

MINUTE, HOUR, AHEAD = timedelta(minutes=1), timedelta(hours=1), timedelta(days=400)


def ended(run, status=Status.SUCCESS, at=NOON, **changes):
    return finish(run, Result(status, **changes), at, 1.5)


def record(store, *runs):
    return store.record(runs).result(10)


def test_a_recorded_run_is_there_as_it_was(store):
    run = a_run(details={"a": [1, None, "ü"]}, actor="token:admin", idempotency_key="k1")

    assert record(store, run) == {run.run_id}
    assert store.run(run.run_id) == run
    assert store.run_by_key("job", "k1") == run
    assert store.run("no such") is None


def test_an_occurrence_is_entered_once(store):
    first, second = a_run(), a_run()

    assert record(store, first) == {first.run_id}
    assert record(store, second) == frozenset()
    assert store.history("job", 10) == [first]


def test_of_a_batch_only_what_is_new_is_entered(store):
    taken, new = a_run("a"), a_run("b")
    record(store, taken)

    assert record(store, a_run("a"), new) == {new.run_id}


def test_recording_the_same_run_twice_is_the_same_as_once(store):
    run = a_run()
    record(store, run)

    assert record(store, run) == {run.run_id}
    assert store.counts() == {"running": 1}


def test_a_retry_of_an_occurrence_and_runs_by_hand_are_no_second_first_attempt(store):
    runs = [a_run(), a_run(attempt=2), a_run(scheduled_at=None), a_run(scheduled_at=None)]

    assert record(store, *runs) == {run.run_id for run in runs}


def test_an_idempotency_key_is_taken_once_per_job(store):
    first = a_run(scheduled_at=None, idempotency_key="k")
    record(store, first)

    assert record(store, a_run(scheduled_at=None, idempotency_key="k")) == frozenset()
    assert len(record(store, a_run("other", scheduled_at=None, idempotency_key="k"))) == 1


def test_of_many_that_claim_one_occurrence_at_once_one_wins(store):
    runs = [a_run() for _ in range(50)]
    with ThreadPoolExecutor(8) as pool:
        taken = [bool(future) for future in pool.map(lambda run: record(store, run), runs)]

    assert taken.count(True) == 1


def test_many_that_wait_share_few_commits(store):
    before = store.commits
    futures = [store.record([a_run(f"job{number}")]) for number in range(1000)]
    for future in futures:
        future.result(10)

    assert store.commits - before < 100
    assert store.counts() == {"running": 1000}


def test_the_first_end_of_a_run_stays(store):
    run = a_run()
    record(store, run)
    store.finish([ended(run, Status.FAILED, message="no", exit_code=3, records_processed=7)]).result(10)
    store.finish([ended(run)]).result(10)

    found = store.run(run.run_id)
    assert (found.status, found.error_message, found.exit_code, found.records_processed) == (Status.FAILED, "no", 3, 7)
    assert (found.finished_at, found.duration_seconds) == (NOON, 1.5)


def test_an_end_and_what_follows_from_it_are_written_together(store):
    run, retry = a_run(), a_run(attempt=2, status=Status.QUEUED)
    record(store, run)

    assert store.finish([ended(run, Status.FAILED)], [retry]).result(10) == {retry.run_id}
    assert {each.run_id for each in store.unfinished()} == {retry.run_id}
    assert store.run(retry.run_id) == retry


def test_what_follows_from_an_end_is_entered_once(store):
    run, retry = a_run(), a_run(attempt=2, status=Status.QUEUED)
    record(store, run)
    store.finish([ended(run, Status.FAILED)], [retry]).result(10)

    assert store.finish([ended(run, Status.FAILED)], [a_run(attempt=2, status=Status.QUEUED)]).result(10) == frozenset()
    assert store.finish([], [retry]).result(10) == {retry.run_id}
    assert store.counts() == {"failed": 1, "queued": 1}


def test_a_cancel_and_a_claim_of_a_waiting_run_have_one_winner(store):
    run, other = a_run(status=Status.QUEUED), a_run("other", status=Status.QUEUED)
    record(store, run, other)
    store.finish([ended(run, Status.CANCELLED)]).result(10)

    assert store.claim(run.run_id).result(10) is False
    assert store.run(run.run_id).status is Status.CANCELLED


def test_a_waiting_run_is_claimed_once(store):
    run = a_run(status=Status.QUEUED)
    record(store, run)

    assert [store.claim(run.run_id).result(10) for _ in range(2)] == [True, False]
    assert store.run(run.run_id).status is Status.RUNNING


def test_history_is_newest_first_paged_and_filtered(store):
    runs = [a_run(at=NOON + number * MINUTE) for number in range(30)]
    record(store, *runs, a_run("other"))
    store.finish([ended(run, Status.FAILED) for run in runs[::3]]).result(10)

    newest = store.history("job", 10)
    assert newest[0].run_id == runs[-1].run_id
    assert [run.run_id for run in store.history("job", 10, before=newest[-1].run_id)] == [
        run.run_id for run in runs[19:9:-1]
    ]
    assert {run.status for run in store.history("job", 100, statuses=[Status.FAILED])} == {Status.FAILED}
    assert len(store.history("job", 100, statuses=["failed", "running"])) == 30


def test_the_newest_rows_of_all_jobs_are_paged_and_filtered(store):
    runs = [a_run(f"job{number % 3}", at=NOON + number * MINUTE) for number in range(9)]
    record(store, *runs)
    store.finish([ended(run, Status.FAILED) for run in runs[::4]]).result(10)
    ids = [run.run_id for run in runs][::-1]

    assert [run.run_id for run in store.recent(4)] == ids[:4]
    assert [run.run_id for run in store.recent(100, before=ids[3])] == ids[4:]
    assert [run.run_id for run in store.recent(2, statuses=[Status.FAILED])] == [ids[0], ids[4]]
    assert store.recent(5, statuses=["missed"]) == []


def test_the_newest_occurrence_and_result_are_known_by_job(store):
    done, missed, by_hand = a_run(), a_run(at=NOON + MINUTE, status=Status.MISSED), a_run("hand", scheduled_at=None)
    record(store, done, missed, by_hand)
    store.finish([ended(done)]).result(10)

    assert store.last_occurrences(["job", "hand", "none"]) == {"job": NOON + MINUTE}
    assert {job: run.run_id for job, run in store.last_results(["job", "hand"]).items()} == {"job": done.run_id}


def test_the_newest_success_of_each_job_is_known(store):
    old, new, failed, hand = a_run(), a_run(at=NOON + MINUTE), a_run(at=NOON + 2 * MINUTE), a_run("hand")
    record(store, old, new, failed, hand)
    store.finish([ended(old), ended(new), ended(failed, status=Status.FAILED), ended(hand, status=Status.FAILED)]).result(10)

    found = store.last_successes(["job", "hand", "none"], NOON + HOUR)
    assert {job: run.run_id for job, run in found.items()} == {"job": new.run_id}
    assert store.last_successes([], NOON + HOUR) == {}


def test_an_end_whose_row_is_not_there_is_entered_and_changes_no_other(store):
    known, unknown = a_run("a"), a_run("b")
    store.record([known]).result(10)
    store.finish([ended(known)]).result(10)
    store.finish([ended(known, Status.FAILED), ended(unknown, Status.FAILED)]).result(10)

    assert store.run(known.run_id) == ended(known)
    assert store.run(unknown.run_id) == ended(unknown, Status.FAILED)
    assert store.counts() == {"success": 1, "failed": 1}


def test_unfinished_runs_are_listed_oldest_first(store):
    queued, running, done = a_run("a", at=NOON + AHEAD, status=Status.QUEUED), a_run("b"), a_run("c")
    record(store, queued, running, done)
    store.finish([ended(done)]).result(10)

    assert [run.job_id for run in store.unfinished()] == ["a", "b"]


def test_a_pause_outlives_the_store_and_changes_of_the_rule(store, opened):
    pause = Pause(NOON, "user:root", "holidays", NOON + MINUTE)
    store.save_jobs([JobRecord("job", "every: 60s", NOON)]).result(10)
    store.set_pause("job", pause).result(10)
    store.save_jobs([JobRecord("job", "every: 90s", NOON + MINUTE)]).result(10)
    store.close()

    again = opened()
    assert again.jobs() == {"job": JobRecord("job", "every: 90s", NOON + MINUTE, pause)}
    again.set_pause("job", None).result(10)
    assert again.jobs()["job"].pause is None
    again.close()


def test_rows_are_deleted_but_never_an_unfinished_one(store):
    done, running, waiting = a_run(), a_run("b"), a_run("c", status=Status.QUEUED)
    record(store, done, running, waiting)
    store.finish([ended(done)]).result(10)

    assert store.delete_runs([done.run_id, running.run_id, waiting.run_id, "no such"]).result(10) == [done.run_id]
    assert store.delete_runs([done.run_id]).result(10) == []
    assert store.run(done.run_id) is None
    assert store.counts() == {"running": 1, "queued": 1}


def place(store, run):
    return store.run(run.run_id).position


def recorded_with_a_clock_that_was_ahead(store):
    """Record seven runs of a job and return them: the three in the middle with a clock that was 400 days ahead."""
    ahead = [AHEAD + number * MINUTE for number in range(3)]
    runs = [a_run(at=NOON + passed) for passed in (0 * MINUTE, MINUTE, *ahead, 3 * MINUTE, 4 * MINUTE)]
    for run in runs:
        record(store, run)
    ends = [Status.SUCCESS, Status.FAILED, *(Status.SUCCESS,) * 3, Status.FAILED, Status.TIMED_OUT]
    store.finish([ended(run, status, run.queued_at) for run, status in zip(runs, ends, strict=True)]).result(10)
    return [run.run_id for run in runs]


def test_newest_is_what_was_recorded_last_whatever_the_clock_said(store, opened):
    runs = recorded_with_a_clock_that_was_ahead(store)
    newest_first = runs[::-1]

    def ids(found):
        return [run.run_id for run in found]

    assert ids(store.history("job", 10)) == ids(store.recent(10)) == newest_first
    failed = ids(store.history("job", 10, statuses=["failed"]))
    assert failed == ids(store.recent(10, statuses=["failed"])) == [runs[5], runs[1]]
    assert ids(store.last_results(["job"]).values()) == [runs[6]]
    assert [row.run_id for row in store.old_rows("job", (0, ""), 10)] == runs
    needed = store.needed("job", 3, NOON + HOUR)
    assert (needed.newest, needed.result, needed.failure) == (runs[6],) * 3
    assert (needed.success, needed.past_success) == (runs[4], runs[0])
    assert needed.oldest_kept[1] == runs[4]
    store.close()
    again = opened()
    last = a_run(at=NOON + 5 * MINUTE)
    record(again, last)
    assert ids(again.history("job", 3)) == [last.run_id, *newest_first[:2]]
    again.close()


def test_pages_follow_the_order_of_recording_also_from_a_run_that_is_gone(store):
    runs = recorded_with_a_clock_that_was_ahead(store)
    for ask in (partial(store.history, "job"), store.recent):
        pages, before = [], None
        while page := ask(2, before):
            pages += [run.run_id for run in page]
            before = pages[-1]
        assert pages == runs[::-1]
    store.delete_runs([runs[3], runs[5]]).result(10)

    assert [run.run_id for run in store.history("job", 10, runs[5])] == [runs[1], runs[0]]  # by the next smaller run_id
    assert [run.run_id for run in store.history("job", 10, runs[3])] == [runs[2], runs[1], runs[0]]
    assert store.history("job", 10, "0") == []


def test_the_last_success_is_none_of_a_time_to_come(store):
    runs = recorded_with_a_clock_that_was_ahead(store)

    assert store.last_successes(["job"], NOON + HOUR)["job"].run_id == runs[0]
    assert store.last_successes(["job"], NOON + 2 * AHEAD)["job"].run_id == runs[4]
    assert store.last_occurrences(["job"], NOON + HOUR) == {"job": NOON + 4 * MINUTE}
    assert store.last_occurrences(["job"]) == {"job": NOON + AHEAD + 2 * MINUTE}


def test_what_is_counted_since_a_moment_ends_now(store):
    recorded_with_a_clock_that_was_ahead(store)

    assert store.counts(NOON - HOUR, NOON + HOUR) == {"success": 1, "failed": 2, "timed_out": 1}
    assert store.counts(NOON - HOUR)["success"] == 4


def test_a_fencing_token_grows_with_each_run_whatever_the_clock_said(store):
    runs = [store.numbered(a_run(at=at, scheduled_at=None)) for at in (NOON, NOON + AHEAD, NOON, NOON - AHEAD)]
    record(store, *runs)
    tokens = [run.fencing_token for run in runs]

    assert tokens == sorted(set(tokens))
    assert [store.run(run.run_id).fencing_token for run in runs] == tokens


def test_rows_from_before_there_was_an_order_are_older_than_all_others(store):
    old = [replace(a_run(at=NOON + number * AHEAD), sequence=0) for number in range(3)]
    new = a_run(at=NOON + MINUTE)
    record(store, old[1], old[2], old[0])
    record(store, new)

    assert [run.run_id for run in store.history("job", 10)] == [new.run_id, *(run.run_id for run in old[::-1])]


def test_the_rows_that_others_need_are_known(store):
    runs = [a_run(at=NOON + number * MINUTE) for number in range(6)]
    skipped = a_run(at=NOON + 10 * MINUTE, status=Status.SKIPPED, finished_at=NOON)
    by_hand = a_run(at=NOON + 11 * MINUTE, scheduled_at=None, origin=Origin.MANUAL)
    record(store, *runs, skipped, by_hand, a_run("other"))
    ends = (Status.SUCCESS, Status.TIMED_OUT, Status.SUCCESS, Status.CANCELLED)
    store.finish([ended(run, status) for run, status in zip(runs, ends, strict=False)]).result(10)

    assert store.needed("job", 2, NOON + MINUTE) == NeededRows(
        newest=by_hand.run_id, occurrence=skipped.run_id, past_occurrence=runs[1].run_id, result=runs[3].run_id,
        failure=runs[1].run_id, success=runs[2].run_id, past_success=runs[0].run_id, oldest_kept=place(store, runs[3]),
    )  # fmt: skip
    assert store.needed("job", 5, NOON).oldest_kept == place(store, runs[0])
    assert store.needed("job", 6, NOON).oldest_kept is None
    assert store.needed("job", None, NOON).oldest_kept is None
    assert store.needed("none", 1, NOON) == NeededRows()
    assert store.job_ids() == ["job", "other"]


def test_old_rows_are_paged_oldest_first(store):
    runs = [a_run(at=NOON + number * MINUTE) for number in range(5)]
    record(store, *runs)
    store.finish([ended(runs[0])]).result(10)

    first = store.old_rows("job", (0, ""), 3)
    assert first[0] == RetentionRow(runs[0].run_id, Status.SUCCESS, Origin.SCHEDULE, NOON, place(store, runs[0])[0])
    assert [row.run_id for row in first] == [run.run_id for run in runs[:3]]
    assert [row.finished_at for row in store.old_rows("job", first[-1].position, 3)] == [None, None]
    assert store.statuses([runs[0].run_id, runs[1].run_id, "no such"]) == {
        runs[0].run_id: Status.SUCCESS, runs[1].run_id: Status.RUNNING,
    }  # fmt: skip


def test_counts_lateness_and_ends_can_be_asked_for_since_a_moment(store):
    old, new = a_run(at=NOON - 60 * MINUTE), a_run(at=NOON, started_at=NOON + timedelta(seconds=2))
    record(store, old, new)
    store.finish([ended(new, records_processed=5)]).result(10)

    assert store.counts(NOON - MINUTE) == {"success": 1}
    ((upto, number),) = store.lateness(NOON - MINUTE)
    assert 2.0 <= upto <= 2.2
    assert number == 1
    (found,) = store.ended_between(NOON, NOON + MINUTE)
    assert (found.job_id, found.status, found.lateness_seconds, found.records_processed) == ("job", "success", 2.0, 5)
    assert list(store.ended_between(NOON - MINUTE, NOON)) == []


def test_many_ends_are_read_in_pages_with_none_left_out_and_none_twice(store, monkeypatch):
    monkeypatch.setattr("schedulerd.store.reader.PAGE", 7)
    runs = [a_run(f"job{number}") for number in range(30)]
    record(store, *runs)
    store.finish([ended(run, at=NOON + number // 4 * MINUTE) for number, run in enumerate(runs)]).result(10)
    pages = store.ended_between(NOON, NOON + 60 * MINUTE)
    first = next(pages).job_id
    store.delete_runs([runs[0].run_id]).result(10)  # who reads slowly holds up nobody

    assert sorted([first, *(one.job_id for one in pages)]) == sorted(run.job_id for run in runs)


STEPS = st.lists(
    st.tuples(st.sampled_from(["record", "claim", "finish", "delete"]), st.integers(0, 9), st.sampled_from(sorted(Status))),
    max_size=40,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_numbers_that_are_kept_are_those_of_the_rows(store, steps):
    ids = count()
    runs = {}
    for what, key, status in steps:
        if what == "record":
            at = NOON + key * 13 * MINUTE
            started_at = at + timedelta(milliseconds=3 * key**6) if status in ENDED else None
            run = a_run(f"job{next(ids)}", at=at, status=status, started_at=started_at)
            runs[key] = run
            record(store, run, run)
        elif key in runs and what == "claim":
            store.claim(runs[key].run_id).result(10)
        elif key in runs and what == "finish":
            started = replace(runs[key], started_at=runs[key].queued_at + timedelta(seconds=key))
            store.finish([ended(started, status)]).result(10)
        elif key in runs:
            store.delete_runs([runs[key].run_id]).result(10)
    for since in (None, NOON, NOON + timedelta(minutes=40), NOON + timedelta(minutes=77, milliseconds=3)):
        rows = [run for run in store.recent(10_000) if since is None or run.queued_at >= since]
        assert store.counts(since) == Counter(run.status for run in rows)
        late = sorted(run.lateness_seconds for run in rows if run.lateness_seconds is not None)
        if since is not None:
            classes = [upto for upto, number in store.lateness(since) for _ in range(number)]
            assert len(classes) == len(late)
            assert all(exact <= upto <= max(exact * 1.11, 0.001) for exact, upto in zip(late, classes, strict=True))
    store.delete_runs([run.run_id for run in store.recent(10_000)]).result(10)


def test_a_day_can_be_written_again(store):
    day = DailyFigures("2026-03-10", "job", {"success": 2}, 5, 1.0, 2.0, 0.1, 0.2)
    for _ in range(2):
        store.save_day("2026-03-10", [day]).result(10)

    assert store.days() == ["2026-03-10"]
    assert store.day("2026-03-10") == [day]
    assert store.day("2026-03-11") == []


def test_days_are_told_oldest_first_of_one_job_or_of_all(store):
    first, second, other = (
        DailyFigures(name, job_id, {"success": 2, "failed": 1}, 5, 1.0, 2.0, 0.1, 0.2, 3.0, 0.15, 2**40, "Europe/Rome")
        for name, job_id in (("2026-03-10", "job"), ("2026-03-11", "job"), ("2026-03-11", "other"))
    )
    store.save_day("2026-03-11", [second, other]).result(10)
    store.save_day("2026-03-10", [first]).result(10)

    assert store.daily("2026-03-10", "2026-03-11") == [first, second, other]
    assert store.daily("2026-03-11", "2026-04-01", "job") == [second]
    assert store.daily("2026-03-12", "2026-04-01") == []


def test_whatever_text_is_asked_for_what_is_not_there_is_no_error(store):
    run = a_run()
    record(store, run)
    odd = "no\0such"

    assert (store.history(odd, 10), store.run(odd), store.run_by_key("job", odd)) == ([], None, None)
    assert (store.daily("2026-03-10", "2026-03-11", odd), store.last_results([odd]), store.statuses([odd])) == ([], {}, {})
    assert store.history("job", 10, before=odd) == [run]  # which sorts before it


def test_after_close_nothing_is_taken(store):
    store.close()

    with pytest.raises(StoreError, match="closed"):
        record(store, a_run())


def test_a_change_that_is_refused_fails_alone(store):
    good, bad = a_run("good"), a_run("bad", details={"x": 1}, attempt="not a number")
    futures = [store.record([bad]), store.record([good])]

    assert futures[1].result(10) == {good.run_id}
    with pytest.raises(StoreError, match="refused"):
        futures[0].result(10)


def test_new_run_ids_of_a_run_by_hand_have_no_occurrence(store):
    run = a_run(scheduled_at=None, origin=Origin.MANUAL, run_id=new_run_id(NOON))
    record(store, run)

    assert store.last_occurrences(["job"]) == {}
