"""The wall clock is set while a real daemon runs: nothing starts twice, nothing is lost, nothing falls silent."""

import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.waiting import until
from tests.support.wallclock import WallClock

HOUR = 3600
ROME = "Europe/Rome"
NIGHT = datetime(2026, 6, 10, 1, 20, tzinfo=UTC)
BEFORE_THE_GAP = datetime(2027, 3, 28, 0, 55, tzinfo=UTC)  # in Rome 01:55; at 02:00 it becomes 03:00
IN_THE_FIRST_PASS = datetime(2026, 10, 25, 0, 25, tzinfo=UTC)  # in Rome 02:25; at 03:00 it becomes 02:00


class Watched:
    """A daemon on a clock of its own, and what its jobs wrote down of themselves."""

    def __init__(self, daemon, folder, jobs, at):
        self.folder = folder
        self.clock = WallClock(folder, at)
        marked = {job_id: rule if "cleanup" in rule else {**self._marking(job_id), **rule} for job_id, rule in jobs.items()}
        self.running = daemon(marked, env=self.clock.env, timezone=ROME, catch_up_spread="5s").start()

    def _marking(self, job_id):
        return {"shell": f'echo "$SCHEDULERD_SCHEDULED_AT" >> {self.folder}/{job_id}.marks', "catch_up": "latest"}

    def marks(self, job_id):
        path = self.folder / f"{job_id}.marks"
        return path.read_text().split() if path.exists() else []

    def until_marks(self, job_id, more):
        wanted = len(self.marks(job_id)) + more
        until(lambda: len(self.marks(job_id)) >= wanted, f"{more} more starts of {job_id}")

    def step(self, seconds):
        noticed = self.running.log().count("the clock was set")
        self.clock.step(seconds)
        until(lambda: self.running.log().count("the clock was set") > noticed, "the step to be noticed")

    def rows(self, job_id):
        """Return (scheduled_at, status, first, count) of each first attempt in the ledger."""
        connection = sqlite3.connect(f"file:{self.running.folder}/state/history.db?mode=ro", uri=True)
        found = connection.execute(
            "SELECT scheduled_at, status, json_extract(details, '$.first'), json_extract(details, '$.count') FROM runs"
            " WHERE job_id = ? AND scheduled_at IS NOT NULL AND attempt = 1",
            (job_id,),
        ).fetchall()
        connection.close()
        return [(datetime.fromtimestamp(at / 1e6, UTC), status, first, count) for at, status, first, count in found]

    def lost(self, job_id, step, start, end):
        """Return the multiples of `step` seconds in (start, end) that neither have a row nor lie in a gap that has one."""
        rows = self.rows(job_id)
        own = {at for at, *_ in rows}
        gaps = [(datetime.fromisoformat(first), at) for at, _, first, _ in rows if first]
        at = datetime.fromtimestamp((int(start.timestamp()) // step + 1) * step, UTC)
        missing = []
        while at < end:
            if at not in own and not any(first <= at <= last for first, last in gaps):
                missing.append(at)
            at += timedelta(seconds=step)
        return missing

    def twice(self):
        return [
            mark
            for path in self.folder.glob("*.marks")
            for mark, count in Counter(path.read_text().split()).items()
            if count > 1
        ]


@pytest.fixture
def watched(daemon, tmp_path):
    return lambda jobs, at: Watched(daemon, tmp_path, jobs, at)


def test_two_hours_forward_are_one_missed_row_and_one_catch_up(watched):
    seen = watched({"tick": {"every": "1s"}, "half": {"cron": "30 * * * *"}}, NIGHT)
    seen.until_marks("tick", 2)
    start = seen.clock.now()
    seen.step(2 * HOUR)
    seen.until_marks("tick", 3)
    end = seen.clock.now() - timedelta(seconds=3)

    assert seen.lost("tick", 1, start, end) == []
    assert max(count or 1 for *_, count in seen.rows("tick")) > 7000
    assert [status for _, status, *_ in sorted(seen.rows("half"))] == ["missed", "success"]
    assert seen.marks("half") == ["2026-06-10T02:30:00Z"]
    assert seen.twice() == []
    why = seen.running.client.get("jobs/tick/why", at="2026-06-10T02:00:00Z")
    assert why["outcome"] == "missed"
    assert "the clock was set forward by" in why["reason"]


def test_two_hours_back_start_nothing_twice_and_silence_nothing(watched):
    seen = watched({"tick": {"every": "1s"}, "minute": {"cron": "* * * * *"}, "fixed": {"cron": "21 3 * * *"}}, NIGHT)
    seen.clock.step(58)
    seen.until_marks("fixed", 1)  # 03:21 in Rome
    start = seen.clock.now()
    seen.step(-2 * HOUR)
    seen.until_marks("tick", 3)
    seen.clock.step(110)  # two minutes of the repeated time, and near to the end of the third
    seen.until_marks("minute", 1)
    seen.clock.step(2 * HOUR - 120)  # shortly before 03:21 again
    seen.until_marks("tick", 8)

    assert seen.marks("fixed") == ["2026-06-10T01:21:00Z"]
    assert seen.twice() == []
    assert start - NIGHT < timedelta(minutes=2)


def test_a_cleanup_takes_no_claim_that_a_clock_set_back_asks_for_again(watched):
    seen = watched({"tick": {"every": "1s"}, "clean": {"cleanup": {"older_than": "0s", "runs_per_job": 1}}}, NIGHT)
    seen.until_marks("tick", 4)
    assert seen.running.client.post("jobs/clean/trigger", {}).body["success"]
    seen.step(-4)
    seen.until_marks("tick", 6)

    assert seen.twice() == []


def test_back_and_forth_over_the_start_of_daylight_saving(watched):
    jobs = {"tick": {"every": "1s"}, "swallowed": {"cron": "30 2 * * *"}, "hourly": {"cron": "0 * * * *"}}
    seen = watched(jobs, BEFORE_THE_GAP)
    seen.until_marks("tick", 1)
    start = seen.clock.now()
    for seconds in (1200, -1200, 1200, -600, 900):
        seen.step(seconds)
        seen.until_marks("tick", 2)
    end = seen.clock.now() - timedelta(seconds=3)

    assert seen.marks("swallowed") == ["2027-03-28T01:00:00Z"]
    assert "2027-03-28T01:00:00Z" in seen.marks("hourly")
    assert seen.lost("tick", 1, start, end) == []
    assert seen.twice() == []
    why = seen.running.client.get("jobs/swallowed/why", at="2027-03-28T02:30")
    assert why["outcome"] == "success"
    assert "02:30:00 does not exist on 2027-03-28" in why["reason"]


def test_back_and_forth_over_the_end_of_daylight_saving(watched):
    jobs = {"tick": {"every": "1s"}, "once": {"cron": "30 2 * * *"}, "both": {"cron": "30 * * * *"}}
    seen = watched(jobs, IN_THE_FIRST_PASS)
    start = seen.clock.now()
    for seconds in (900, HOUR, -HOUR, HOUR + 600):
        seen.step(seconds)
        seen.until_marks("tick", 2)
    end = seen.clock.now() - timedelta(seconds=3)

    assert seen.marks("once") == ["2026-10-25T00:30:00Z"]
    assert {"2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"} <= set(seen.marks("both"))
    assert seen.lost("tick", 1, start, end) == []
    assert seen.twice() == []


def test_after_a_restart_on_a_clock_that_was_set_back_jobs_go_on(watched):
    seen = watched({"tick": {"every": "1s"}}, NIGHT)
    seen.until_marks("tick", 3)
    seen.running.stop()
    seen.clock.step(-HOUR)
    seen.running.start()
    seen.until_marks("tick", 3)

    assert seen.twice() == []


def test_a_wrong_year_for_a_moment_does_not_silence_the_nightly_job(watched):
    seen = watched({"nightly": {"cron": "21 3 * * *"}, "tick": {"every": "1s"}}, NIGHT)
    seen.step(40 * 24 * HOUR)
    until(lambda: seen.marks("nightly"), "the newest of those 40 nights to be caught up")
    seen.step(-40 * 24 * HOUR + 50)
    until(lambda: "2026-06-10T01:21:00Z" in seen.marks("nightly"), "tonight's run")

    assert seen.twice() == []
    assert len(seen.marks("nightly")) == 2


def test_a_week_without_the_daemon_is_one_missed_row_per_job(watched):
    jobs = {f"minutely{number}": {"cron": "* * * * *"} for number in range(40)}
    seen = watched(jobs, NIGHT + timedelta(seconds=55))
    seen.until_marks("minutely39", 1)
    seen.running.stop()
    seen.clock.step(7 * 24 * HOUR)
    seen.running.start()
    for job_id in jobs:
        rows = until(lambda job_id=job_id: len(found := sorted(seen.rows(job_id))) >= 3 and found, f"the rows of {job_id}")
        _, missed, caught_up = rows[:3]
        assert missed[1] == "missed"
        assert missed[3] == 7 * 24 * 60 - 1
        assert caught_up[0] - NIGHT > timedelta(days=7)
    assert seen.twice() == []
    why = seen.running.client.get("jobs/minutely0/why", at="2026-06-12T12:00:00Z")
    assert "the daemon was not running then" in why["reason"]
