"""The clock of a real daemon is wrong by 400 days for some seconds and right again: nothing that is asked later shows it."""

from datetime import UTC, datetime, timedelta

from tests.support.waiting import until
from tests.support.wallclock import WallClock

AHEAD = 400 * 86400
NIGHT = datetime(2026, 6, 10, 1, 20, tzinfo=UTC)
SOON = NIGHT + timedelta(hours=1)


def instant(text):
    return datetime.fromisoformat(text)


def test_a_clock_that_was_ahead_for_a_moment_leaves_no_trace(daemon, tmp_path):
    clock = WallClock(tmp_path, NIGHT)
    code, marks = tmp_path / "code", tmp_path / "marks"
    code.write_text("0")
    told = f'echo "$SCHEDULERD_LAST_SUCCESS_AT" "$SCHEDULERD_FENCING_TOKEN" >> {marks}; exit $(cat {code})'
    jobs = {
        "tick": {"every": "1s", "shell": told},
        "daily": {"cron": "0 3 * * *", "command": ["/bin/true"]},
        "again": {"shell": f"exit $((1 - $(cat {code})))", "retries": 1, "retry_delay": "2s"},
        "clean": {"cleanup": {"older_than": "30d", "runs_per_job": 20}},
    }
    running = daemon(jobs, env=clock.env, timezone="UTC", catch_up_spread="1s").start()
    client = running.client

    def step(seconds):
        noticed = running.log().count("the clock was set")
        clock.step(seconds)
        until(lambda: running.log().count("the clock was set") > noticed, "the step to be noticed")

    running.until_run("tick", "success", 2)
    kept = {run["run_id"] for run in running.history("tick", limit=100)}
    step(AHEAD)
    until(lambda: instant(running.history("tick", limit=1)[0]["started_at"]) > SOON, "a run with the wrong clock")
    client.post("jobs/again/trigger", {}, wait="false")
    running.until_run("again", "failed")
    assert "ages were computed at 2026-06-10" in client.post("jobs/clean/trigger", {}).body["message"]
    assert kept <= {run["run_id"] for run in running.history("tick", limit=100)}
    code.write_text("1")
    step(-AHEAD)
    before = len(marks.read_text().splitlines())
    until(lambda: len(marks.read_text().splitlines()) >= before + 3, "three runs with the right clock")
    running.until_run("again", "success")

    for is_last in (False, True):  # also after a restart
        newest = running.job("tick")["last_result"]
        assert (newest["status"], instant(newest["started_at"]) < SOON) == ("failed", True)
        assert instant(running.job("daily")["next_run_time"]) == datetime(2026, 6, 10, 3, tzinfo=UTC)
        for rows in (running.history("tick", limit=2), client.get("runs", job="tick", limit=2)):
            assert all(instant(row["started_at"]) < SOON for row in rows)
        assert client.get("jobs/tick/why")["outcome"] in ("failed", "running")
        assert client.get("jobs/daily/why", at="2026-06-12T03:00")["outcome"] == "coming"
        done = [line.split() for line in marks.read_text().splitlines()]
        assert all(instant(at) < SOON for at, _ in done[-2:])
        assert [int(token) for *_, token in done] == sorted(int(token) for *_, token in done)
        count = len(done)
        if not is_last:
            running.stop()
            running.start()
            until(lambda count=count: len(marks.read_text().splitlines()) >= count + 2, "two runs after the restart")
