"""Anything may happen to clock, daemon and pauses, in any order: nothing starts twice or early, and nothing is lost."""

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schedulerd.core.models import CatchUp, Origin, Overlap, Pause, Status
from schedulerd.core.retries import retry_at_of
from schedulerd.store.sqlite.store import SqliteStore
from tests.support.builders import NOON, a_job
from tests.support.engine import Engine
from tests.support.manual_clock import ManualClock

JOBS = [
    a_job("minute", every="1m"),
    a_job("hourly", cron="0 * * * *", catch_up=CatchUp.ALL, catch_up_spacing_seconds=7.0, catch_up_limit=50),
    a_job("nightly", cron="30 2 * * *", timezone="Europe/Rome"),
    a_job("none", cron="*/20 * * * *", catch_up=CatchUp.NONE, misfire_grace_seconds=300.0),
    a_job("jittered", cron="*/15 * * * *", jitter="9m", spread="4m", overlap=Overlap.ALLOW),
    a_job("dark", every="10m", blackout="12:30..14:00"),
    a_job("deferred", cron="5,35 * * * *", blackout=["12:30..14:00", "20:00..02:00"], on_blackout="defer"),
    a_job("several", triggers=[{"cron": "7 * * * *"}, {"startup": True}, {"after": {"job": "hourly"}}]),
    a_job("retried", cron="*/20 * * * *", retries=2, retry_delay_seconds=200.0, uses={"mutex m": 1}),
    a_job("after", after={"all": ["hourly", "dark"], "when": "always"}),
]
TIMED = ["minute", "hourly", "nightly", "none", "jittered", "dark", "deferred", "several", "retried"]
SECONDS = st.integers(1, 5 * 3600)
OPERATIONS = st.one_of(
    st.tuples(st.just("pass"), SECONDS),
    st.tuples(st.just("step"), SECONDS),
    st.tuples(st.just("back"), SECONDS),
    st.tuples(st.just("sleep"), SECONDS),
    st.tuples(st.just("restart"), st.integers(0, 3 * 3600)),
    st.tuples(st.just("pause"), st.sampled_from(TIMED)),
    st.tuples(st.just("resume"), st.sampled_from(TIMED)),
    st.tuples(st.just("reload"), st.sampled_from(TIMED)),
)


class World:
    """One daemon after the other on one ledger and one clock."""

    def __init__(self, folder):
        self.clock = ManualClock(NOON)
        self.store = SqliteStore(str(folder / "history.db"))
        self.jobs = {job.job_id: job for job in JOBS}
        self.early = []
        self.engines = [self.start()]

    def start(self):
        engine = Engine(self.store, self.clock, self.jobs.values(), spread=20.0)
        launch = engine.launch

        def checked(job, run, listener):
            is_timed = run.origin in (Origin.SCHEDULE, Origin.CATCH_UP)  # others follow what has happened already
            if is_timed and run.scheduled_at > self.clock.now() + timedelta(milliseconds=1):
                self.early.append((run.job_id, run.scheduled_at, self.clock.now()))
            launch(job, run, listener)

        engine.launch = checked
        engine.ends_as = lambda run: Status.FAILED if run.job_id == "retried" and run.attempt < 3 else Status.SUCCESS
        return engine

    @property
    def engine(self):
        return self.engines[-1]

    def let_pass(self, seconds):
        """Let time pass as the planner's loop does: from one thing to do to the next, and never more than a minute."""
        end, turns = self.clock.monotonic() + seconds, 0
        while self.clock.monotonic() < end and turns < 4000:
            following = self.engine.timetable.next_time()
            wait = 60.0 if following is None else (following - self.clock.now()).total_seconds()
            self.engine.advance(min(max(wait, 0.001), 60.0, max(end - self.clock.monotonic(), 0.001)))
            turns += 1
        assert turns < 4000, "the loop spins"

    def do(self, what, value):
        if what == "pass":
            self.let_pass(min(value, 3600))
        elif what == "step":
            self.clock.step(self.clock.now() + timedelta(seconds=value))
        elif what == "back":
            self.clock.step(self.clock.now() - timedelta(seconds=value))
        elif what == "sleep":
            self.clock.sleep(value)
        elif what == "restart":  # kill -9: what was in memory only is gone
            self.clock.advance(value)
            self.engines.append(self.start())
        elif what == "reload":
            self.jobs[value] = a_job_like(self.jobs[value])
            self.engine.apply(*self.jobs.values())
        else:
            pause = Pause(self.clock.now(), "test") if what == "pause" else None
            self.engine.pauses.set(value, pause).result(10)
        self.engine.advance()

    def rows(self, job_id):
        return self.store.occurrences(job_id, datetime.fromisoformat("2026-01-01T00:00:00+00:00"), 100_000)


def a_job_like(job):
    """Return the job as an edit leaves it that changes nothing about its times."""
    return replace(job, description=f"{job.description or ''}.")


def lost(world, job_id, until):
    """Return the occurrences of a job's rule up to a time that neither have a row nor lie in a gap that has one."""
    rows = world.rows(job_id)
    own = {run.scheduled_at for run in rows}
    gaps = [
        (datetime.fromisoformat(run.details["first"]), datetime.fromisoformat(run.details["last"]))
        for run in rows
        if "first" in run.details
    ]
    trigger, missing = world.jobs[job_id].trigger, []
    found = trigger.occurrence_after(NOON)
    while found is not None and found.start_at <= until:
        at = found.scheduled_at
        if at not in own and not any(first <= at <= last for first, last in gaps):
            missing.append(at)
        found = trigger.occurrence_after(at)
    return missing


@settings(max_examples=60, deadline=None)
@given(operations=st.lists(OPERATIONS, min_size=1, max_size=12))
@example(operations=[("step", 14878), ("back", 860), ("step", 1240), ("back", 860), ("pass", 1009), ("pass", 2593)])
@example(operations=[("back", 2), ("pass", 422)])
def test_nothing_starts_twice_or_early_and_nothing_is_lost(tmp_path_factory, operations):
    world = World(tmp_path_factory.mktemp("torture"))
    for what, value in operations:
        world.do(what, value)
    for job_id in TIMED:
        world.engine.pauses.set(job_id, None).result(10)
    settled = world.clock.now()
    world.do("sleep", ((settled + timedelta(days=1)).replace(hour=16) - settled).total_seconds())  # out of every blackout
    world.let_pass(900)  # for what is spaced and put off

    started = Counter((run.job_id, run.scheduled_at, run.attempt) for engine in world.engines for _, run in engine.started)
    assert [key for key, count in started.items() if count > 1] == []
    assert world.early == []
    for job_id in TIMED:
        assert lost(world, job_id, settled) == []
    attempts = {(run.scheduled_at, run.attempt): run for run in world.rows("retried")}
    for (scheduled_at, attempt), run in attempts.items():
        assert ("retry" in run.details) is ((scheduled_at, attempt + 1) in attempts)
        assert attempt < 3 or run.status is not Status.FAILED
        assert run.status is not Status.QUEUED or retry_at_of(run) > world.clock.now()
    followed = [end for run in world.rows("several") if run.origin is Origin.AFTER for end in run.details["after"].values()]
    assert len(followed) == len(set(followed))
    world.store.close()
