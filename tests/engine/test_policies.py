"""Retries, cancels, replacements, pools, mutexes and gates on the whole engine, with a real store."""

from datetime import timedelta

import pytest

from schedulerd.core.concurrency import HostLoad
from schedulerd.core.errors import NotFoundError, StoppingError
from schedulerd.core.models import Actor, Overlap, Pause, Result, Role, Status
from schedulerd.engine import completion as ends_module
from schedulerd.engine.launcher import Finished
from tests.support.builders import NOON, a_job
from tests.support.engine import Engine
from tests.support.manual_clock import ManualClock

ADMIN = Actor("me", Role.ADMIN)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def clock():
    return ManualClock(NOON - SECOND)


@pytest.fixture
def start(store, clock):
    """Make engines on one ledger and one clock; they end no run by themselves. A second one is a restart after kill -9."""
    return lambda *jobs, **more: Engine(store, clock, jobs, ends_at_once=False, **more)


def statuses(engine, job_id="job"):
    return [(run.attempt, str(run.status)) for run in engine.rows(job_id)]


def fail(engine, **result):
    engine.settle()
    engine.finish(*engine.started[-1], status=Status.FAILED, **result)
    engine.settle()


def succeed(engine, place=-1):
    engine.settle()
    engine.finish(*engine.started[place])
    engine.settle()


def trigger(engine, job_id="job"):
    engine.clock.advance(0.001)  # rows sort by their time
    asked = engine.manual_runs.trigger(job_id, ADMIN)
    engine.settle()
    return asked


def running(engine):
    return sorted(run.job_id for run in engine.table.running())


# Retries


def test_a_failed_run_is_tried_again_after_its_delay(start):
    engine = start(a_job(every="1h", retries=2))
    engine.advance(1)
    fail(engine)
    assert statuses(engine) == [(1, "failed"), (2, "queued")]
    engine.advance(9.9)
    assert len(engine.started) == 1
    engine.advance(0.1)
    fail(engine)
    engine.advance(20)
    fail(engine)
    engine.advance(600)

    first, second, third = engine.rows("job")
    assert statuses(engine) == [(1, "failed"), (2, "failed"), (3, "failed")]
    assert {run.scheduled_at for run in (first, second, third)} == {NOON}
    assert (third.details["of"], third.details["previous"], third.origin) == (first.run_id, second.run_id, "retry")
    assert (first.details["retry"], second.details["retry"]) == (second.run_id, third.run_id)
    assert "retry" not in third.details


def test_a_job_has_done_its_work_up_to_the_occurrence_of_its_newest_success(start):
    engine = start(a_job(every="1h"))
    engine.advance(1)
    run = engine.started[0][1]
    assert engine.last_success_at(run) is None
    engine.clock.advance(60)  # it took a while: what came meanwhile is the next one's
    succeed(engine)
    assert engine.last_success_at(run) == NOON
    engine.advance(HOUR.total_seconds())
    fail(engine)
    assert engine.last_success_at(run) == NOON
    second = start(a_job(every="1h"))
    assert second.last_success_at(run) == NOON
    trigger(second)
    succeed(second)

    assert second.last_success_at(run) == second.clock.now()


def test_an_older_run_that_succeeds_later_takes_nothing_back(start):
    engine = start(a_job(every="1h", overlap=Overlap.ALLOW))
    engine.advance(1)
    engine.advance(HOUR.total_seconds())
    succeed(engine, 1)
    succeed(engine, 0)

    assert engine.last_success_at(engine.started[0][1]) == NOON + HOUR


def test_the_planner_wakes_up_for_a_retry(start):
    engine = start(a_job(every="1h", retries=1))
    engine.advance(1)
    fail(engine)

    assert engine.timetable.next_time() == NOON + 10 * SECOND


def test_a_success_or_a_cancel_is_not_tried_again(start):
    engine = start(a_job(every="1m", retries=5))
    engine.advance(1)
    succeed(engine)
    engine.advance(60)
    engine.cancellation.cancel(engine.started[-1][1].run_id, "me").result(10)
    fail(engine)

    assert statuses(engine) == [(1, "success"), (1, "cancelled")]


def test_a_retry_survives_a_restart_and_keeps_its_time(start, clock):
    job = a_job(every="1h", retries=1, retry_delay_seconds=100.0)
    first = start(job)
    first.advance(1)
    fail(first)
    clock.advance(50)
    second = start(job)
    second.advance()
    assert second.started == []
    second.advance(50)

    assert [run.attempt for _, run in second.started] == [2]
    succeed(second)
    assert statuses(second) == [(1, "failed"), (2, "success")]


def test_a_retry_whose_time_passed_while_nobody_was_there_starts_at_once(start, clock):
    job = a_job(every="1h", retries=1)
    fail_at_start = start(job)
    fail_at_start.advance(1)
    fail(fail_at_start)
    clock.advance(1000)
    engine = start(job)
    engine.settle()

    assert [run.attempt for _, run in engine.started] == [2]


def test_an_abandoned_run_is_tried_again_when_that_is_wanted(start, clock):
    job = a_job(every="1h", retries=1, retry_on=("abandoned",))
    start(job).advance(1)
    engine = start(job)
    assert statuses(engine) == [(1, "abandoned"), (2, "queued")]
    engine.advance(10)

    assert [run.attempt for _, run in engine.started] == [2]


def test_a_retry_waits_while_its_job_is_paused(start):
    engine = start(a_job(every="1h", retries=1))
    engine.advance(1)
    fail(engine)
    engine.pauses.set("job", Pause(NOON, "me")).result(10)
    engine.advance(100)
    assert len(engine.started) == 1
    engine.pauses.set("job", None).result(10)
    engine.settle()

    assert len(engine.started) == 2


def test_a_retry_never_starts_when_the_daemon_is_stopping(start, clock):
    engine = start(a_job(every="1h", retries=1))
    engine.advance(1)
    engine.stop()
    fail(engine)
    engine.advance(100)
    assert len(engine.started) == 1

    again = start(a_job(every="1h", retries=1))
    again.settle()
    assert len(again.started) == 1


def test_the_retry_of_a_job_that_is_gone_is_cancelled(start):
    engine = start(a_job(every="1h", retries=1), a_job("other"))
    engine.advance(1)
    fail(engine)
    engine.apply(a_job("other"))
    engine.settle()
    engine.advance(100)

    assert statuses(engine) == [(1, "failed"), (2, "cancelled")]
    assert len(engine.started) == 1


def test_the_next_occurrence_supersedes_a_retry(start):
    engine = start(a_job(every="1m", retries=1, retry_delay_seconds=300.0))
    engine.advance(1)
    fail(engine)
    engine.advance(60)
    engine.settle()

    rows = engine.rows("job")
    assert statuses(engine) == [(1, "failed"), (2, "cancelled"), (1, "running")]
    assert rows[1].error_message == f"superseded by the next occurrence, run {rows[2].run_id}"


def test_a_retry_waits_for_its_turn_while_its_job_runs(start):
    engine = start(a_job(every="1h", retries=1))
    engine.advance(1)
    fail(engine)
    trigger(engine)
    engine.advance(20)
    assert running(engine) == ["job"]
    succeed(engine)
    engine.settle()

    assert [run.origin for _, run in engine.started] == ["schedule", "manual", "retry"]


def test_a_retry_moves_behind_a_blackout(start):
    engine = start(a_job(every="1h", blackout="12:00:05..13:00", retries=1))
    engine.advance(1)
    fail(engine)

    assert engine.timetable.next_time() == NOON + HOUR


def test_no_attempt_outlives_the_deadline(start):
    engine = start(a_job(every="1h", retries=9, retry_delay_seconds=20.0, retry_backoff=1.0, deadline_seconds=60.0))
    engine.advance(1)
    assert engine.started[0][0].timeout_seconds == 60.0
    engine.clock.advance(10)
    fail(engine)
    engine.advance(20)
    job, run = engine.started[1]
    assert (job.timeout_seconds, run.details["deadline"]) == (40.0, True)  # it "started" as it failed
    engine.clock.advance(40)
    engine.finish(job, run, status=Status.TIMED_OUT)
    engine.settle()

    assert statuses(engine) == [(1, "failed"), (2, "timed_out")]
    assert engine.rows("job")[1].error_message == "ended at its deadline: 1m after the start of its first attempt"


def test_a_retry_that_waits_beyond_its_deadline_is_over(start):
    engine = start(a_job(every="1h", retries=9, deadline_seconds=60.0))
    engine.advance(1)
    fail(engine)
    engine.pauses.set("job", Pause(NOON, "me")).result(10)
    engine.advance(59)
    assert statuses(engine) == [(1, "failed"), (2, "queued")]
    engine.advance(1)
    engine.settle()

    assert statuses(engine) == [(1, "failed"), (2, "timed_out")]
    assert engine.rows("job")[1].details["reason"] == "deadline"


def test_what_follows_hears_of_the_last_attempt_only(start):
    chain = a_job("next", after={"job": "job", "when": "failure"})
    engine = start(a_job(every="1h", retries=1), chain)
    engine.advance(1)
    fail(engine)
    engine.advance()
    assert engine.rows("next") == []
    engine.advance(10)
    fail(engine)
    engine.advance()

    assert [run.details["after"] for run in engine.rows("next")] == [{"job": engine.rows("job")[-1].run_id}]


def test_an_end_that_has_a_later_attempt_is_not_followed_after_a_restart(start):
    jobs = a_job(every="1h", retries=1), a_job("next", after={"job": "job", "when": "always"})
    first = start(*jobs)
    first.advance(1)
    fail(first)
    second = start(*jobs)
    second.advance()
    assert second.rows("next") == []
    second.advance(10)
    succeed(second)
    second.advance()

    assert len(second.rows("next")) == 1


FOLLOWERS = [a_job(f"on_{when}", after={"job": "job", "when": when}) for when in ("success", "failure", "always")]


def followed(engine, rows):
    """Return which jobs followed, and assert that each did once, after the last of `rows`."""
    found = {name: engine.rows(name) for name in ("on_success", "on_failure", "on_always")}
    assert all(run.details["after"] == {"job": rows[-1].run_id} for runs in found.values() for run in runs)
    return [name for name, runs in found.items() for _ in runs]


def lose_by_cancel(engine):
    engine.cancellation.cancel(engine.rows("job")[-1].run_id, "me").result(10)


def lose_by_a_gate(engine):
    engine.load = HostLoad(9.0, 0.0)
    for _ in range(5):
        engine.advance(15)


GATED = {"only_if": {"load1_below": 4.0}, "only_if_within_seconds": 40.0}


@pytest.mark.parametrize(("lose", "changes"), [(lose_by_cancel, {}), (lose_by_a_gate, GATED)])
def test_a_retry_that_is_lost_leaves_the_failure_to_those_that_follow(start, lose, changes):
    engine = start(a_job(every="1h", retries=1, **changes), *FOLLOWERS)
    engine.advance(1)
    fail(engine)
    lose(engine)
    engine.advance()

    assert statuses(engine)[1] in [(2, "cancelled"), (2, "skipped")]
    assert followed(engine, engine.rows("job")) == ["on_failure", "on_always"]
    second = start(a_job(every="1h", retries=1, **changes), *FOLLOWERS)
    second.advance()
    assert followed(second, second.rows("job")) == ["on_failure", "on_always"]


@pytest.mark.parametrize(("lose", "changes"), [(lose_by_cancel, {}), (lose_by_a_gate, GATED)])
def test_a_retry_that_was_lost_just_before_a_restart_is_followed_after_it(start, lose, changes):
    first = start(a_job(every="1h", retries=1, **changes), *FOLLOWERS)
    first.advance(1)
    fail(first)
    first.dependencies.follow = lambda _runs: None  # it dies before it hears of this one
    lose(first)
    second = start(a_job(every="1h", retries=1, **changes), *FOLLOWERS)
    second.advance()

    assert followed(second, second.rows("job")) == ["on_failure", "on_always"]


def test_a_superseded_retry_is_a_failure_to_those_that_follow(start):
    engine = start(a_job(every="1m", retries=1, retry_delay_seconds=300.0), *FOLLOWERS)
    engine.advance(1)
    fail(engine)
    engine.advance(60)
    engine.advance()
    lost = engine.rows("job")[:2]
    assert [str(run.status) for run in lost] == ["failed", "cancelled"]
    assert followed(engine, lost) == ["on_failure", "on_always"]


def test_who_triggered_a_run_hears_of_its_last_attempt(start):
    engine = start(a_job(retries=1))
    asked = trigger(engine)
    fail(engine)
    assert not asked.done.done()
    engine.advance(10)
    succeed(engine)

    found = asked.done.result(10)
    assert (found.attempt, found.status, found.actor) == (2, "success", "me")


def test_a_repeat_of_a_key_waits_for_the_last_attempt_too(start):
    engine = start(a_job(retries=1))
    asked = [engine.manual_runs.trigger("job", ADMIN, "key")]
    fail(engine)
    asked.append(engine.manual_runs.trigger("job", ADMIN, "key"))
    engine.advance(10)
    succeed(engine)
    asked.append(engine.manual_runs.trigger("job", ADMIN, "key"))

    assert [each.done.result(10).attempt for each in asked] == [2, 2, 2]
    assert {each.recorded.result(10).attempt for each in asked} == {1}


def test_who_waits_is_told_of_an_end_whose_retry_they_will_not_see(start):
    engine = start(a_job(retries=1))
    asked = trigger(engine)
    engine.stop()
    fail(engine)

    assert asked.done.result(10).attempt == 1


def test_an_interval_after_finish_counts_from_the_last_attempt(start):
    engine = start(a_job(every="1m", after="finish", retries=1))
    engine.advance(61)
    fail(engine)
    assert engine.timetable.next_time() == engine.clock.now() + 10 * SECOND
    engine.advance(10)
    succeed(engine)

    assert engine.timetable.next_time() == engine.clock.now() + 60 * SECOND


# Cancels


def test_a_waiting_run_is_cancelled_at_once_and_for_good(start):
    engine = start(a_job(every="1m", overlap=Overlap.QUEUE))
    engine.advance(1)
    engine.advance(60)
    found = engine.cancellation.cancel(engine.rows("job")[1].run_id, "me").result(10)
    succeed(engine)
    engine.settle()

    assert (found.status, found.error_message) == ("cancelled", "cancelled by me")
    assert len(engine.started) == 1
    assert statuses(engine) == [(1, "success"), (1, "cancelled")]


def test_a_waiting_retry_can_be_cancelled_and_who_waits_for_it_is_told(start):
    engine = start(a_job(retries=1))
    asked = trigger(engine)
    fail(engine)
    engine.cancellation.cancel(engine.rows("job")[-1].run_id, "me").result(10)
    engine.advance(100)

    assert asked.done.result(10).status is Status.CANCELLED
    assert len(engine.started) == 1


def test_a_running_run_is_ended_and_is_cancelled_then(start):
    engine = start(a_job(retries=3))
    trigger(engine)
    run_id = engine.started[0][1].run_id
    assert engine.cancellation.cancel(run_id, "me").result(10).status is Status.RUNNING
    assert engine.ordered == [(run_id, "cancel")]
    fail(engine)

    assert [(str(run.status), run.error_message) for run in engine.rows("job")] == [("cancelled", "cancelled by me")]


def test_a_cancel_that_comes_before_the_process_is_there_is_not_lost(start):
    engine = start(a_job())
    trigger(engine)
    run = engine.started[0][1]
    engine.takes_orders = False
    engine.cancellation.cancel(run.run_id, "me").result(10)
    with pytest.raises(StoppingError, match="cancelled by me"):
        engine.lifecycle.may_start(run)
    engine.takes_orders = True
    engine.advance(1)
    engine.advance(1)

    assert engine.ordered == [(run.run_id, "cancel")] * 2


def test_what_has_ended_stays_as_it_ended(start):
    engine = start(a_job())
    trigger(engine)
    succeed(engine)

    assert engine.cancellation.cancel(engine.started[0][1].run_id, "me").result(10).status is Status.SUCCESS
    engine.advance()
    assert engine.ordered == []


def test_a_run_that_there_is_not_cannot_be_cancelled(start):
    with pytest.raises(NotFoundError):
        start().cancellation.cancel("no such", "me")


def test_of_a_cancel_and_a_start_one_wins(start):
    engine = start(a_job(overlap=Overlap.QUEUE))
    asked = [trigger(engine) for _ in range(10)]
    for place in range(10):
        waiting = [run.run_id for run in engine.rows("job") if run.status is Status.QUEUED]
        if len(waiting) > 1:
            engine.finish(*engine.started[-1])  # lets the oldest start while it is cancelled, in the store's thread
            engine.cancellation.cancel(waiting[0], "me").result(10)
            engine.settle()
            if engine.started[-1][1].run_id == waiting[0]:
                fail(engine)
                assert engine.store.run(waiting[0]).status is Status.CANCELLED, place
    while running(engine):
        succeed(engine)
        engine.settle()

    assert len({run.run_id for _, run in engine.started}) == len(engine.started)
    assert engine.store.unfinished() == []
    assert all(each.done.result(10) for each in asked)


# Overlaps


def test_a_newer_run_replaces_the_one_that_runs(start):
    engine = start(a_job(every="1m", overlap=Overlap.REPLACE))
    engine.advance(1)
    engine.advance(60)
    old, new = engine.rows("job")
    assert engine.ordered == [(old.run_id, "replace")]
    assert (len(engine.started), new.status) == (1, "queued")
    fail(engine)
    engine.settle()

    old, new = engine.rows("job")
    assert (old.status, old.error_message, new.status) == ("cancelled", f"replaced by run {new.run_id}", "running")


def test_of_several_newer_runs_the_newest_starts(start):
    engine = start(a_job(every="1m", overlap=Overlap.REPLACE))
    for seconds in (1, 60, 60):
        engine.advance(seconds)
        engine.settle()
    fail(engine)
    engine.settle()

    assert [str(run.status) for run in engine.rows("job")] == ["cancelled", "cancelled", "running"]
    assert len(engine.ordered) == 1


def test_a_newer_run_replaces_the_older_ones_also_after_a_restart(start):
    job = a_job(overlap=Overlap.REPLACE)
    first = start(job)
    trigger(first)
    first.takes_orders = False  # the daemon dies before it can give the order
    trigger(first)
    old, new = first.rows("job")
    second = start(job, known=[old.run_id])
    assert second.ordered == [(old.run_id, "replace")]
    fail(second)

    assert [str(run.status) for run in second.rows("job")] == ["cancelled", "running"]
    assert second.rows("job")[0].error_message == f"replaced by run {new.run_id}"


def test_a_replacement_that_is_cancelled_replaces_nothing_later(start):
    engine = start(a_job(every="1m", overlap=Overlap.REPLACE))
    engine.advance(1)
    engine.takes_orders = False
    engine.advance(60)
    engine.cancellation.cancel(engine.rows("job")[1].run_id, "me").result(10)
    engine.ordered.clear()
    engine.dispatcher.accept(engine.rows("job")[1])

    assert engine.ordered == []


def test_so_many_instances_and_no_more(start):
    engine = start(
        a_job("allow", overlap=Overlap.ALLOW, max_instances=2), a_job("queue", overlap=Overlap.QUEUE, max_instances=2)
    )
    for _ in range(3):
        trigger(engine, "allow")
        trigger(engine, "queue")

    assert [run.status for run in engine.rows("allow")] == ["running", "running", "skipped"]
    assert engine.rows("allow")[-1].details["reason"] == "overlap"
    assert [run.status for run in engine.rows("queue")] == ["running", "running", "queued"]
    succeed(engine)
    assert running(engine).count("queue") == 2


# Pools


def test_a_run_waits_for_its_pool_and_says_so(start):
    jobs = [a_job(name, uses={"db": 1}) for name in "abc"]
    engine = start(*jobs, a_job("free"), pools={"db": 2})
    for name in "abc":
        trigger(engine, name)
    trigger(engine, "free")
    assert running(engine) == ["a", "b", "free"]
    assert engine.rows("c")[0].details["reason"] == "waits for pool db (2 of 2 taken)"
    succeed(engine, 0)
    engine.settle()

    assert running(engine) == ["b", "c", "free"]
    succeed(engine)
    assert engine.rows("c")[0].details == {"waited": "waits for pool db (2 of 2 taken)", "message": "it went wrong"}


def test_jobs_with_a_mutex_run_one_at_a_time_and_the_most_important_first(start):
    engine = start(*(a_job(name, uses={"mutex m": 1}, priority=number) for number, name in enumerate("abc")))
    for name in "abc":
        trigger(engine, name)
    order = []
    for _ in range(3):
        order += running(engine)
        succeed(engine)
        engine.settle()

    assert order == ["a", "c", "b"]


def test_a_large_run_is_not_starved_by_small_ones(start):
    small = a_job("small", uses={"db": 1}, overlap=Overlap.ALLOW)
    engine = start(small, a_job("large", uses={"db": 3}), pools={"db": 3})
    for name in ("small", "small", "large", "small"):
        trigger(engine, name)
    assert running(engine) == ["small", "small"]
    succeed(engine, 0)
    assert running(engine) == ["small"]
    succeed(engine, 1)
    engine.settle()

    assert running(engine) == ["large"]


def test_a_run_that_waits_for_one_pool_is_passed_by_in_the_other(start):
    only_a, only_b = a_job("a", uses={"a": 1}), a_job("b", uses={"b": 1}, overlap=Overlap.ALLOW)
    engine = start(only_a, only_b, a_job("both", uses={"a": 1, "b": 1}), pools={"a": 1, "b": 1})
    for name in ("a", "both", "b"):
        trigger(engine, name)
    assert running(engine) == ["a", "b"]
    succeed(engine)
    trigger(engine, "b")

    assert running(engine) == ["a", "b"]
    assert engine.rows("both")[0].details["reason"] == "waits for pool a (1 of 1 taken)"


def test_a_run_of_two_busy_pools_comes_at_last(start):
    jobs = [a_job(name, uses={name: 1}, overlap=Overlap.QUEUE) for name in "ab"]
    engine = start(*jobs, a_job("both", uses={"a": 1, "b": 1}), pools={"a": 1, "b": 1})
    for name in ("a", "b", "both", *"ababab"):
        trigger(engine, name)
    for place in range(4):  # never do both have room at the same time
        if "both" not in running(engine):
            (run,) = [each for each in engine.table.running() if each.job_id == "ba"[place % 2]]
            engine.finish(engine.table.get(run.job_id).job, run)
            engine.settle()

    assert running(engine) == ["both"]


def test_what_waits_for_a_pool_waits_on_after_a_restart(start):
    jobs = [a_job(name, uses={"db": 1}) for name in "ab"]
    first = start(*jobs, pools={"db": 1})
    for name in "ab":
        trigger(first, name)
    second = start(*jobs, pools={"db": 1})
    second.settle()

    assert running(second) == ["b"]  # the other one is abandoned, and its slot free


def test_a_reload_may_give_a_pool_more_slots(start):
    jobs = [a_job(name, uses={"db": 1}) for name in "ab"]
    engine = start(*jobs, pools={"db": 1})
    for name in "ab":
        trigger(engine, name)
    engine.pools = {"db": 2}
    engine.apply(*jobs)
    engine.settle()

    assert running(engine) == ["a", "b"]


def test_a_cancelled_run_gives_no_seat_back_that_it_did_not_have(start):
    engine = start(*(a_job(name, uses={"db": 1}) for name in "abc"), pools={"db": 1})
    for name in "abc":
        trigger(engine, name)
    engine.cancellation.cancel(engine.rows("b")[0].run_id, "me").result(10)
    engine.settle()
    assert running(engine) == ["a"]
    succeed(engine)
    engine.settle()

    assert running(engine) == ["c"]


def test_a_run_that_cannot_be_handed_over_gives_its_seat_back(start):
    engine = start(*(a_job(name, uses={"db": 1}) for name in "ab"), pools={"db": 1})
    launch, engine.launch = engine.launch, None
    trigger(engine, "a")
    engine.launch = launch
    trigger(engine, "b")

    assert running(engine) == ["b"]


# Gates


def test_a_run_waits_for_the_load_to_fall(start):
    engine = start(a_job(every="1h", only_if={"load1_below": 4.0}))
    engine.load = HostLoad(5.0, 0.0)
    engine.advance(1)
    engine.settle()
    assert (len(engine.started), statuses(engine)) == (0, [(1, "queued")])
    engine.load = HostLoad(3.0, 0.0)
    engine.advance(14)
    assert engine.started == []
    engine.advance(1)
    engine.settle()

    assert len(engine.started) == 1


def test_a_run_whose_gate_does_not_open_in_time_is_skipped(start):
    engine = start(a_job(every="1h", only_if={"load1_below": 4.0}, only_if_within_seconds=40.0))
    engine.load = HostLoad(5.0, 0.0)
    engine.advance(1)
    for _ in range(5):
        engine.advance(10)
    engine.load = HostLoad(0.0, 0.0)
    engine.advance(60)

    (run,) = engine.rows("job")
    assert (run.status, run.details["reason"]) == ("skipped", "condition")
    assert run.error_message == "the load was 5, not below 4, for 40.0s"
    assert engine.started == []


def test_an_open_gate_costs_no_time_and_what_is_asked_for_passes_a_closed_one(start):
    engine = start(a_job(every="1h", only_if={"load1_below": 4.0}))
    engine.advance(1)
    engine.settle()
    assert len(engine.started) == 1
    succeed(engine)
    engine.load = HostLoad(9.0, 0.0)
    trigger(engine)

    assert len(engine.started) == 2


def test_a_gate_is_looked_at_again_after_a_restart(start):
    job = a_job(every="1h", only_if={"free_memory_above": 100.0})
    first = start(job)
    first.load = HostLoad(0.0, 50.0)
    first.advance(1)
    first.settle()
    second = start(job)
    second.settle()

    assert (len(first.started), len(second.started)) == (0, 1)


def test_an_end_is_written_although_nobody_can_tell_what_follows_it(start, monkeypatch):
    engine = start(a_job("bad"), a_job("good"))
    for job_id in ("bad", "good"):
        trigger(engine, job_id)
    ends = [Finished(job, run, Result(Status.FAILED, message="no"), engine.clock.now(), 1.0) for job, run in engine.started]
    honest = ends_module.next_row

    def next_row(job, *others):
        if job.job_id == "bad":
            raise ZeroDivisionError("float division by zero")
        return honest(job, *others)

    monkeypatch.setattr(ends_module, "next_row", next_row)
    for end in ends:
        engine.lifecycle.on_started(end.run, engine.clock.now())
    engine.lifecycle.on_finished(ends)
    engine.settle()

    assert statuses(engine, "bad") == statuses(engine, "good") == [(1, "failed")]
    assert engine.rows("bad")[0].details["retry"] == "unknown: ZeroDivisionError: float division by zero"
    assert running(engine) == []
