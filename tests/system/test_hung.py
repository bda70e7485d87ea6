"""Files that never answer hold up their own job only, and not for ever."""

import os
import signal
from pathlib import Path

from schedulerd.cli.client import job_path, run_path
from tests.support.daemon import RunningDaemon
from tests.support.hung import hung_mount, needs_fuse
from tests.support.small_disk import needs_root, on_disk_of
from tests.support.waiting import until

MANY = 6  # more than there are threads that start


def hanging(path):
    return {f"hangs{number}": {"shell": "true", "env": {"X": {"file": str(path)}}} for number in range(MANY)}


def started(running, name):
    return running.client.post(job_path(name, "trigger"), wait="false").body["run_id"]


def waiting(running):
    return running.client.get("health")["scheduler"]["queue"]


def test_a_secret_that_is_no_file_is_refused_and_holds_nobody_up(daemon, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    running = daemon({**hanging(tmp_path / "fifo"), "fine": {"shell": "true"}}).start()
    runs = [started(running, f"hangs{number}") for number in range(MANY)]

    assert running.client.post(job_path("fine", "trigger")).body["status"] == "success"
    ended = [until(lambda run_id=run_id: ended_run(running, run_id), "the end") for run_id in runs]
    assert all("it is not a regular file" in run["error_message"] for run in ended)


def ended_run(running, run_id):
    run = running.client.get(run_path(run_id))
    return run if run["status"] not in ("queued", "running") else None


@needs_root
@needs_fuse
@on_disk_of("1M")
def test_a_mount_that_hangs_holds_up_its_own_jobs_only_and_those_fail(folder: Path):
    with hung_mount(folder / "mount") as release:
        running = RunningDaemon(folder, {"jobs": {**hanging(folder / "mount" / "key"), "fine": {"shell": "true"}}}).start()
        runs = [started(running, f"hangs{number}") for number in range(MANY)]
        until(lambda: waiting(running)["waiting"] == MANY, "all of them")
        assert running.client.post(job_path("fine", "trigger")).body["status"] == "success"
        assert waiting(running)["oldest_seconds"] > 0

        ended = [until(lambda run_id=run_id: ended_run(running, run_id), "the end", 30) for run_id in runs]
        assert {run["status"] for run in ended} == {"failed"}
        assert "does not answer" in ended[0]["error_message"]
        assert waiting(running) == {"waiting": 0, "oldest_seconds": None}
        again = running.client.post(job_path("hangs0", "trigger")).body["result"]
        assert f"the preparation of run {runs[0]} of this job still hangs" in again["error_message"]

        release()
        until(lambda: "no longer hangs" in running.log(), "the thread")
        running.close()


@needs_root
@needs_fuse
@on_disk_of("1M")
def test_a_mount_that_hangs_does_not_keep_the_daemon_from_stopping(folder: Path):
    with hung_mount(folder / "mount") as release:
        jobs = hanging(folder / "mount" / "key")
        running = RunningDaemon(folder, {"jobs": jobs, "shutdown_grace": "0s"}).start()
        run_id = started(running, "hangs0")
        until(lambda: waiting(running)["waiting"] == 1, "it")
        running.signal(signal.SIGTERM)
        assert running.wait(30) == 0
        release()
        running.start()
        assert running.client.get(run_path(run_id))["error_message"] == "not started: the daemon is stopping"
        running.close()


@needs_root
@needs_fuse
@on_disk_of("1M")
def test_a_folder_that_hangs_hides_no_other_from_health(folder: Path):
    with hung_mount(folder / "mount") as release:
        hung, well = str(folder / "mount"), str(folder)
        check = {"storage": [hung, well], "probe_timeout": "0.5s"}
        running = RunningDaemon(folder, {"jobs": {"health": {"health_check": check}}}).start()
        first, again = (running.client.post(job_path("health", "trigger")).body["result"]["details"] for _ in range(2))
        release()
        running.close()

    for details, why in ((first, "no answer within 0.5 s"), (again, "still hangs")):
        storage = details["services"]["storage"]
        assert details["status"] == storage["status"] == "unhealthy"
        assert why in storage["paths"][hung]["error"]
        assert storage["error"] == f"{hung}: {storage['paths'][hung]['error']}"
        assert storage["paths"][well]["status"] == "healthy"
        assert storage["paths"][well]["free_bytes"] > 0
        assert [name for name in details["services"] if "storage" in name] == ["storage"]
