"""Planner, policy, ledger and dependencies together, on a clock that the test holds: what becomes of each occurrence."""

from datetime import datetime, timedelta

import pytest

from schedulerd.actions.cleanup import Cleaning
from schedulerd.core.errors import BusyError
from schedulerd.core.models import CatchUp, Origin, Overlap, Pause, Status
from schedulerd.core.retention import RetentionRules
from schedulerd.engine.due import new_run
from schedulerd.process.output import OutputFolder
from tests.support.builders import NOON, a_job
from tests.support.engine import Engine
from tests.support.manual_clock import ManualClock

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def engine(store, clock):
    return lambda *jobs, **settings: Engine(store, clock, jobs, **settings)


def test_a_week_without_a_daemon_is_one_missed_row_and_one_run(engine, clock):
    first = engine(a_job("a", every="1m"))
    first.advance(60)
    clock.advance(7 * 86400)
    second = engine(a_job("a", every="1m"))
    second.advance()

    missed, run = second.rows("a")[1:]
    assert missed.details["count"] == 7 * 1440 - 1
    assert missed.details["cause"] == "the daemon was not running then"
    assert (run.origin, run.scheduled_at) == (Origin.SCHEDULE, clock.now())


def test_catch_up_all_starts_them_one_after_the_other_although_overlap_says_skip(engine, clock):
    job = a_job(
        "a", every="1h", catch_up=CatchUp.ALL, catch_up_limit=3, catch_up_spacing_seconds=10.0, misfire_grace_seconds=5.0
    )
    engine(job).advance(3600)
    clock.advance(6 * 3600)
    after = engine(job, ends_at_once=False)
    for _ in range(4):
        after.advance(10)

    assert len(after.started) == 1
    assert [status for status, *_ in after.said("a")] == ["success", "missed", "running", "queued", "queued"]
    assert after.rows("a")[1].details["reason"] == "more than its catch_up_limit of 3"
    for _ in range(3):
        after.finish(*after.started[-1])
        after.settle()
    times = [run.scheduled_at for _, run in after.started]
    assert times == [NOON + 5 * HOUR, NOON + 6 * HOUR, NOON + 7 * HOUR]


def test_what_a_blackout_forbids_is_a_skipped_row_with_its_window(engine):
    found = engine(a_job("a", every="1h", blackout="13:30..14:30"))
    for _ in range(3):
        found.advance(3600)

    assert [status for status, *_ in found.said("a")] == ["success", "skipped", "success"]
    assert found.rows("a")[1].details == {"reason": "blackout", "window": "blackout 13:30..14:30"}
    assert found.table.states["a"].next_run_at == NOON + 4 * HOUR


def test_the_next_time_that_is_shown_is_no_forbidden_one(engine):
    found = engine(a_job("a", every="1h", blackout="12:30..14:30"))

    assert found.table.states["a"].next_run_at == NOON + 3 * HOUR


def test_what_a_blackout_defers_starts_once_at_its_end(engine):
    found = engine(a_job("a", every="1h", blackout="12:30..14:30", on_blackout="defer"))
    found.advance(2 * 3600)
    assert found.said("a") == []
    found.advance(1800)

    missed, run = found.rows("a")
    assert (missed.status, missed.scheduled_at) == (Status.MISSED, NOON + HOUR)
    assert run.scheduled_at == NOON + 2 * HOUR
    assert run.details["rules"] == ["deferred to the end of blackout 12:30..14:30"]


def test_jitter_moves_the_start_and_not_the_occurrence(engine):
    found = engine(a_job("a", every="1h", jitter="10m"))
    delay = found.timetable.next_time() - NOON - HOUR
    assert timedelta() < delay < 10 * MINUTE
    found.advance(3600)
    assert found.said("a") == []
    found.advance(600)

    (run,) = found.rows("a")
    assert run.scheduled_at == NOON + HOUR
    assert run.details["rules"][0].endswith("by jitter")


def test_after_a_step_back_a_rhythm_goes_on_under_new_times_and_a_fixed_time_is_not_started_again(engine, clock):
    found = engine(a_job("minute", every="1m"), a_job("fixed", cron="2 12 * * *"))
    for _ in range(5):
        found.advance(60)
    clock.step(NOON)
    for seconds in (0, *[60] * 6):
        found.advance(seconds)

    times = [run.scheduled_at for _, run in found.started if run.job_id == "minute"]
    assert len(times) == len(set(times)) == 11
    again = [run for run in found.rows("minute") if "again" in run.details]
    assert [run.scheduled_at - NOON for run in again] == [n * MINUTE + timedelta(microseconds=1) for n in range(1, 6)]
    assert "follows elapsed time" in again[0].details["reason"]
    assert [run.job_id for _, run in found.started].count("fixed") == 1


def test_a_time_that_a_wrong_clock_only_passed_over_is_not_lost(engine, clock):
    found = engine(a_job("nightly", cron="0 3 * * *"))
    clock.step(NOON + timedelta(days=40))
    found.advance()
    clock.step(NOON)
    for _ in range(24):
        found.advance(3600)

    assert [run.scheduled_at.day for _, run in found.started] == [19, 11]
    assert found.started[1][1].scheduled_at == datetime.fromisoformat("2026-03-11T03:00:00+00:00")


def test_every_after_finish_counts_from_each_end_also_over_a_restart(engine, clock):
    job = a_job("a", every="10m", after="finish")
    found = engine(job, ends_at_once=False)
    found.advance(600)
    found.advance(3600)
    assert len(found.started) == 1
    found.finish(*found.started[0])
    found.settle()
    assert found.table.states["a"].next_run_at == clock.now() + 10 * MINUTE
    ended_at = clock.now()
    clock.advance(60)
    after = engine(job)
    after.advance(540)

    assert after.started[0][1].scheduled_at == ended_at + 10 * MINUTE


def test_a_skipped_time_does_not_end_counting_from_the_end(engine, clock):
    found = engine(a_job("a", every="10m", after="finish"))
    found.pauses.set("a", Pause(NOON, "test")).result(10)
    found.advance(600)
    found.advance(600)

    assert [status for status, *_ in found.said("a")] == ["skipped", "skipped"]


def test_a_job_follows_a_success_once(engine, clock):
    found = engine(a_job("sync", every="1h"), a_job("warm", after={"job": "sync"}))
    for _ in range(2):
        found.advance(3600)
        found.advance()

    ends = [run.finished_at for run in found.rows("sync")]
    assert found.said("warm") == [("success", Origin.AFTER, at) for at in ends]
    assert found.rows("warm")[0].details["after"] == {"sync": found.rows("sync")[0].run_id}


def test_a_failure_starts_who_waits_for_one(engine):
    jobs = (
        a_job("sync", every="1h"),
        a_job("warm", after={"job": "sync"}),
        a_job("alarm", after={"job": "sync", "when": "failure"}),
    )
    found = engine(*jobs, ends_at_once=False)
    found.advance(3600)
    found.finish(*found.started[0], status=Status.FAILED)
    found.settle()
    found.advance()

    assert [run.job_id for _, run in found.started] == ["sync", "alarm"]


def test_all_means_that_each_has_ended_since(engine):
    found = engine(
        a_job("a", cron="10 * * * *"),
        a_job("b", cron="20 * * * *"),
        a_job("both", after={"all": ["a", "b"]}, overlap=Overlap.ALLOW),
    )
    for _ in range(12):
        found.advance(600)
        found.advance()

    assert [(run.scheduled_at - NOON) / MINUTE for run in found.rows("both")] == [20, 80]


def test_an_end_that_no_daemon_saw_to_is_followed_at_the_next_start(engine, store, clock):
    jobs = a_job("sync", every="1h"), a_job("warm", after={"job": "sync"})
    first = engine(*jobs)
    first.dependencies.follow = lambda _runs: None  # killed right after the end was written
    first.advance(3600)
    second = engine(*jobs)
    second.advance()
    third = engine(*jobs)
    third.advance()

    (row,) = third.rows("warm")
    assert (row.origin, row.scheduled_at) == (Origin.AFTER, NOON + HOUR)


def test_startup_is_once_per_start_and_not_at_a_reload(engine, clock):
    job = a_job("a", startup=True)
    found = engine(job)
    found.advance()
    found.apply(job, a_job("b", startup=True))
    found.advance(60)
    assert found.said("a") == [("success", Origin.STARTUP, NOON)]
    assert found.said("b") == []
    again = engine(job)
    again.advance()

    assert len(again.rows("a")) == 2


def test_a_pause_tells_what_it_skipped(engine, clock):
    found = engine(a_job("a", cron="* * * * *"))
    found.pauses.set("a", Pause(NOON, "test")).result(10)
    found.advance(60)
    clock.step(NOON + HOUR)
    found.advance()

    one, many = found.rows("a")
    assert (one.status, one.details) == (Status.SKIPPED, {"reason": "paused"})
    assert many.details["count"] == 59


# Answers


def test_next_tells_starts_with_their_reasons_and_what_a_blackout_skips(engine):
    found = engine(a_job("a", cron="30 2 * * *", timezone="Europe/Rome", blackout="2026-03-12"))
    answer = found.occurrences.next_times("a", 3, "2026-03-10")
    night = found.occurrences.next_times("a", 1, "2026-03-28T12:00")

    assert [each["local"] for each in answer["times"]] == [
        "2026-03-10T02:30:00+01:00", "2026-03-11T02:30:00+01:00", "2026-03-13T02:30:00+01:00",
    ]  # fmt: skip
    assert [each["local"] for each in answer["skipped"]] == ["2026-03-12T02:30:00+01:00"]
    assert night["times"][0]["at"] == "2026-03-29T01:00:00Z"
    assert "does not exist" in night["times"][0]["reasons"][0]


def test_next_after_the_clock_was_set_back_leaves_out_what_was_decided(engine, clock):
    found = engine(a_job("fixed", cron="2 12 * * *"))
    found.advance(120)
    clock.step(NOON)
    found.advance()

    assert found.occurrences.next_times("fixed", 1, None)["times"][0]["at"] == "2026-03-11T12:02:00Z"


@pytest.mark.parametrize(
    ("job", "at", "outcome", "words"),
    [
        ({"cron": "0 12 * * *"}, "2026-03-12T12:00", "coming", "it will start at 2026-03-12T12:00:00Z"),
        (
            {"cron": "0 12 * * *"},
            "2026-03-09T12:00",
            "not_planned",
            "but has been in force only since",
        ),
        ({"cron": "0 12 * * *"}, "2026-03-12T13:00", "not_due", "the next one is 2026-03-13T12:00:00+00:00"),
        ({"cron": "0 12 * * *", "blackout": "thu"}, "2026-03-12T12:00", "coming", "it will be skipped: blackout thu"),
        ({"cron": "0 12 * * *", "enabled": False}, "2026-03-12T12:00", "not_due", "disabled"),
        ({}, "2026-03-12T12:00", "not_due", "no trigger"),
        ({"every": "1h", "after": "finish"}, "2026-03-12T12:00", "not_due", "only the ledger knows"),
        (
            {"cron": "30 2 * * *", "timezone": "Europe/Rome"},
            "2026-03-29T02:30",
            "coming",
            "02:30:00 does not exist on 2026-03-29",
        ),
        (
            {"cron": "30 2 * * *", "timezone": "Europe/Rome"},
            "2026-10-25T01:30Z",
            "not_due",
            "second pass of a repeated time",
        ),
    ],
)
def test_why_answers_for_times_without_a_row(engine, job, at, outcome, words):
    answer = engine(a_job("a", **job)).explanations.why("a", at)

    assert answer["outcome"] == outcome
    assert words in answer["reason"]


def test_why_tells_what_the_ledger_has(engine, clock):
    found = engine(a_job("a", cron="* * * * *"))
    found.advance(60)
    clock.step(NOON + HOUR)
    found.advance()

    assert found.explanations.why("a", "2026-03-10T12:01")["outcome"] == "success"
    missed = found.explanations.why("a", "2026-03-10T12:30")
    assert missed["outcome"] == "missed"
    assert "a newer occurrence was started instead" in missed["reason"]
    assert "because the clock was set forward by 59m" in missed["reason"]
    assert found.explanations.why("a", None)["run"]["scheduled_at"] == "2026-03-10T13:00:00Z"


def test_simulate_takes_expected_durations_from_the_past(engine):
    found = engine(a_job("a", every="1h"), a_job("b", cron="0 0 1 1 *"))
    found.advance(3600)
    answer = found.simulations.simulate(None, None)

    assert answer["starts"] == 24
    assert answer["timeline"][0]["expected_seconds"] == 1.0
    assert answer["busy_seconds"] == 24
    assert answer["peak"]["running"] == 1
    assert answer["is_whole"]


def test_next_knows_the_one_time_that_is_counted_from_an_end(engine):
    found = engine(a_job("a", every="10m", after="finish"))

    assert [each["at"] for each in found.occurrences.next_times("a", 5, None)["times"]] == ["2026-03-10T12:10:00Z"]


def test_a_pause_also_holds_while_times_come_again(engine, clock):
    found = engine(a_job("a", every="1m"))
    for _ in range(3):
        found.advance(60)
    found.pauses.set("a", Pause(NOON, "test")).result(10)
    clock.step(NOON)
    for seconds in (0, *[60] * 5):
        found.advance(seconds)

    assert len(found.started) == 3


def test_a_new_bound_of_catch_up_holds_after_a_reload(engine, clock):
    found = engine(a_job("a", every="1m"))
    found.apply(
        a_job("a", every="1m", catch_up=CatchUp.ALL, catch_up_limit=5, catch_up_spacing_seconds=0.0, overlap=Overlap.ALLOW)
    )
    found.advance(600)

    assert len(found.started) == 5


def test_a_kill_while_catch_ups_are_put_off_loses_nothing(engine, clock):
    jobs = [a_job(f"j{number:02}", triggers=[{"cron": "0 13 * * *"}, {"startup": True}]) for number in range(30)]
    engine(*jobs)
    clock.advance(2 * 3600)
    killed = engine(*jobs, spread=60.0)
    killed.advance()
    clock.advance(1)
    after = engine(*jobs)
    for _ in range(3):
        after.advance(1)

    for job in jobs:
        assert NOON + HOUR in [run.scheduled_at for run in after.rows(job.job_id)]


def test_ends_are_followed_after_a_kill_whatever_else_starts_the_job(engine, clock):
    both = {"after": {"all": ["a", "b"]}}
    jobs = a_job("a"), a_job("b"), a_job("j", triggers=[{"cron": "* * * * *"}, both]), a_job("k", **both)
    first = engine(*jobs)
    first.advance(1)
    end_of(first, "a")
    first.advance(60)
    second = engine(*jobs)
    end_of(second, "b")
    for _ in range(3):
        second.advance()

    assert [run.origin for run in second.rows("k")] == [Origin.AFTER]
    assert Origin.AFTER in [run.origin for run in second.rows("j")]


def test_every_end_is_followed_after_a_kill_also_those_whose_start_jitter_delayed(engine, clock):
    jobs = a_job("a"), a_job("j", after={"job": "a"}, jitter="60s", overlap=Overlap.ALLOW, catch_up=CatchUp.ALL)
    first = engine(*jobs)
    for _ in range(12):
        first.advance(1)
        end_of(first, "a")
    second = engine(*jobs)
    for _ in range(150):
        second.advance(1)

    ends = {run.finished_at for run in second.rows("a")}
    assert len(ends) == 12
    assert {run.scheduled_at for run in second.rows("j")} == ends
    assert len(second.rows("j")) == 12


def end_of(engine, job_id):
    """Run a job by hand, to its end."""
    state = engine.table.states[job_id]
    run = engine.store.numbered(new_run(state.job.job_id, Origin.MANUAL, engine.clock.now(), None, engine.node))
    engine.store.record([run]).result(10)
    engine.finish(state.job, run)
    engine.settle()


def test_a_reload_that_ends_a_plan_leaves_a_row_of_what_was_still_to_be_caught_up(engine, clock):
    policy = {"catch_up": CatchUp.ALL, "catch_up_spacing_seconds": 2.0}
    engine(a_job("a", every="1m", **policy))
    clock.advance(30 * 60)
    found = engine(a_job("a", every="1m", **policy), a_job("b", every="1m", **policy))
    for _ in range(3):
        found.advance(2)
    found.apply(a_job("a", every="7m", **policy))
    found.settle()

    missed = next(run for run in found.rows("a") if run.status is Status.MISSED)
    assert missed.details["reason"] == "its rule was changed before it was started"
    assert missed.details["count"] == 27
    assert found.explanations.why("a", "2026-03-10T12:20")["outcome"] == "missed"


def test_what_waits_to_follow_an_end_is_missed_when_its_job_is_disabled_meanwhile(engine):
    found = engine(a_job("a", every="1h"), a_job("b", after={"job": "a"}, jitter="50m"))
    found.advance(3600)
    found.apply(a_job("a", every="1h"), a_job("b", after={"job": "a"}, jitter="50m", enabled=False))
    found.advance(3500)

    assert [run.status for run in found.rows("b")] == [Status.MISSED]
    assert [run.job_id for _, run in found.started] == ["a"]


def test_next_looks_beyond_any_number_of_forbidden_times(engine):
    found = engine(
        a_job("a", every="1m", blackout="wed..sun"), a_job("b", every="1m", blackout="wed..sun", on_blackout="defer")
    )
    skipped, deferred = (found.occurrences.next_times(job_id, 2, "2026-03-11") for job_id in "ab")

    assert [each["at"] for each in skipped["times"]] == ["2026-03-16T00:00:00Z", "2026-03-16T00:01:00Z"]
    assert len(skipped["skipped"]) == 100
    assert [each["scheduled_at"] for each in deferred["times"]] == ["2026-03-16T00:00:00Z", "2026-03-16T00:01:00Z"]
    assert "a newer one starts at the same time instead" in found.explanations.why("b", "2026-03-12T10:00")["reason"]


def test_why_means_the_very_time_that_is_asked_for(engine, clock):
    found = engine(
        a_job("a", calendar="*:*:00,40", blackout="2026-03-10T12:01:00..2026-03-10T12:01:30"), a_job("hourly", every="1h")
    )
    found.advance(60)
    found.advance(40)
    clock.step(NOON + 5 * HOUR)
    found.advance()

    assert found.explanations.why("a", "2026-03-10T12:01")["outcome"] == "skipped"
    assert found.explanations.why("a", "2026-03-10T12:01:40")["outcome"] == "success"
    assert found.explanations.why("hourly", "2026-03-10T14:00")["outcome"] == "missed"
    assert found.explanations.why("hourly", "2026-03-10T14:07")["outcome"] == "not_due"


def test_a_row_tells_that_daylight_saving_had_a_say(engine, clock):
    found = engine(a_job("a", cron="30 2 * * *", timezone="Europe/Rome"))
    clock.step(datetime.fromisoformat("2026-03-29T01:00:00+00:00"))
    found.advance()

    assert "does not exist" in found.rows("a")[-1].details["rules"][0]
    assert "does not exist" in found.explanations.why("a", "2026-03-29T03:00")["reason"]


def test_one_simulation_at_a_time_is_played(engine):
    found = engine(a_job("a", every="1h"))
    with found.simulations._is_busy, pytest.raises(BusyError, match="try again"):
        found.simulations.simulate(None, None)

    assert found.simulations.simulate(None, None)["starts"] == 24


def test_ends_that_were_told_to_be_missed_are_not_followed_after_a_restart(engine, clock):
    dark = {"blackout": "21:50..06:00", "on_blackout": "defer"}
    jobs = a_job("a", every="1h"), a_job("x", after={"job": "a"}, **dark)
    found = engine(*jobs)
    clock.step(NOON + timedelta(hours=9, minutes=55))
    for _ in range(9):
        found.advance(3600)
    found.advance()
    count = len(found.rows("x"))
    for _ in range(3):
        found = engine(*jobs)
        found.advance(1)

    assert count == len({run.scheduled_at for run in found.rows("x")}) == len(found.rows("x"))
    assert {run.scheduled_at for run in found.rows("x")} == {run.finished_at for run in found.rows("a") if run.finished_at}


def test_what_counts_from_an_end_has_one_time_however_late_it_is(engine, clock):
    policy = {"catch_up": CatchUp.ALL, "catch_up_spacing_seconds": 0.0, "overlap": Overlap.ALLOW}
    found = engine(a_job("k", every="1m"), a_job("f", every="10m", after="finish", **policy), spread=20.0)
    clock.step(NOON + HOUR)
    for _ in range(5):
        found.advance(1)

    assert [run.scheduled_at for run in found.rows("f")] == [NOON + 10 * MINUTE]


def test_what_came_due_a_moment_before_a_reload_has_a_row(engine, clock):
    found = engine(a_job("k", cron="0 13 * * *"), a_job("gone", cron="0 13 * * *"))
    clock.advance(3600.5)
    found.apply(a_job("k", cron="0 14 * * *"))
    found.advance(1)

    for job_id in ("k", "gone"):
        assert [(run.status, run.scheduled_at) for run in found.rows(job_id)] == [(Status.MISSED, NOON + HOUR)]


def test_what_waits_to_follow_an_end_is_missed_when_its_job_is_taken_away(engine):
    found = engine(a_job("a", every="1h"), a_job("b", after={"job": "a"}, jitter="50m"))
    found.advance(3600)
    found.apply(a_job("a", every="1h"))
    found.advance(3500)

    assert [run.status for run in found.rows("b")] == [Status.MISSED]


def test_next_before_a_long_deferring_blackout_answers_with_the_newest_of_those_that_start_together(engine):
    found = engine(a_job("a", every="1s", blackout="2026-03-11..2026-03-20", on_blackout="defer"))
    answer = found.occurrences.next_times("a", 3, "2026-03-10T23:59:58")

    assert [each["scheduled_at"] for each in answer["times"]] == [
        "2026-03-10T23:59:59Z", "2026-03-21T00:00:00Z", "2026-03-21T00:00:01Z",
    ]  # fmt: skip


def test_old_rows_of_jobs_without_times_of_their_own_go_too(engine, clock, store, tmp_path):
    found = engine(a_job("a", every="1h"), a_job("x", after={"job": "a"}))
    for _ in range(10):
        found.advance(3600)
        found.advance()
    clock.advance(400 * 86400)
    rules = RetentionRules(older_than=timedelta(days=100))
    Cleaning(store, OutputFolder(str(tmp_path / "output")), rules, clock.now(), acts=True).clean()

    assert len(found.rows("x")) == 1
    assert len(found.rows("a")) == 1


def test_rules_that_share_their_times_are_all_caught_up(engine, clock):
    rules = [{"every": "1m"}, {"cron": "* * * * *"}, {"calendar": "*-*-* *:*:00"}]
    policy = {"catch_up": CatchUp.ALL, "catch_up_spacing_seconds": 0.0, "overlap": Overlap.ALLOW, "catch_up_limit": 1000}
    found = engine(a_job("a", triggers=rules, **policy))
    clock.step(NOON + 900 * MINUTE)
    found.advance()

    assert len(found.started) == 900
