"""A start with mistakes in the configuration: the last good one is used, and told wherever an operator looks."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.iofault import IoFault
from tests.support.small_disk import SmallDisk, needs_root, on_disk_of

TICK = {"tick": {"every": "1s", "shell": "true"}}


@pytest.fixture
def running(daemon):
    """A daemon with a file in `jobs.d`, that has run."""
    made = daemon(TICK, include=["jobs.d/*.yaml"])
    (made.folder / "jobs.d").mkdir()
    write(made, "jobs: {more: {every: 1s, shell: 'true'}}")
    return made.start()


def write(daemon, text):
    path = daemon.folder / "jobs.d" / "a.yaml"
    path.write_text(text)
    path.chmod(0o600)


def reload(daemon):
    daemon.reload(daemon.config_path.read_text())


def own_health(daemon):
    return daemon.client.get("health")["scheduler"]


def schedulerctl(daemon, *words):
    command = [sys.executable, "-m", "schedulerd.cli", "--socket", str(daemon.socket_path), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_after_a_start_with_a_bad_file_all_jobs_run_and_it_is_told_until_the_mended_one_is_loaded(running):
    running.stop()
    write(running, "jobs:\n  more: {every: 1x, shell: x}\n")
    running.spawn()
    running.wait_for("READY=1\nSTATUS=2 jobs; the last good configuration is used, 1 mistake: see the journal")
    problem = f"{running.folder}/jobs.d/a.yaml:2:10: jobs.more.every"
    own, listed, health = own_health(running), schedulerctl(running, "list"), schedulerctl(running, "health")

    assert running.until_run("more", "success", len(running.history("more", limit=100)) + 1)
    assert (own["is_well"], own["config_is_copy"], running.client.get("health")["status"]) == (False, True, "degraded")
    assert own["config_problems"][0].startswith(problem)
    assert (listed.returncode, "more" in listed.stdout) == (0, True)
    assert "the configuration has 1 mistake; the last good one, of 2" in listed.stderr
    assert "the configuration has 1 mistake" in schedulerctl(running, "list", "--json").stderr
    assert (health.returncode, problem in health.stdout, "is in force" in health.stdout) == (1, True, True)
    assert problem in running.log()
    assert "the last good configuration is used" in running.log()
    assert "is ready: 2 jobs from the last good copy of " in running.log()

    write(running, "jobs: {mended: {every: 1s, shell: 'true'}}")
    reload(running)
    own, listed = own_health(running), schedulerctl(running, "list")
    assert (own["is_well"], own["config_is_copy"], own["config_problems"]) == (True, False, [])
    assert (listed.stderr, "mended" in listed.stdout) == ("", True)


def test_after_a_bad_reload_a_restart_has_the_same_jobs(running):
    write(running, "jobs: {more: {every: 1x, shell: x}}")
    reload(running)
    assert "reload failed" in running.log()
    assert "the configuration has 1 mistake" in schedulerctl(running, "list").stderr
    jobs = running.client.get("jobs")
    running.kill()
    running.start()

    assert [job["trigger"] for job in running.client.get("jobs")] == [job["trigger"] for job in jobs]
    assert own_health(running)["config_is_copy"]


def test_what_a_reload_brought_is_the_last_good_one(running):
    write(running, "jobs: {newer: {every: 1s, shell: 'true'}}")
    reload(running)
    running.kill()
    write(running, "jobs: {")
    running.start()

    assert {job["job_id"] for job in running.client.get("jobs")} == {"tick", "newer"}


def test_mistakes_after_mistakes_do_not_wear_the_copy_off(running):
    for text in ("jobs: {", "jobs: {more: {}}", "[]"):
        running.kill()
        write(running, text)
        running.start()
        reload(running)

    assert {job["job_id"] for job in running.client.get("jobs")} == {"tick", "more"}


def test_a_strict_start_with_mistakes_fails(running):
    running.stop()
    write(running, "jobs: {")
    command = [sys.executable, "-m", "schedulerd", "--strict", "--config", str(running.config_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])

    assert done.returncode == 2
    assert f"{running.folder}/jobs.d/a.yaml:2:1: not YAML" in done.stderr


def test_a_mistake_that_shows_at_the_start_only_is_none_that_the_copy_helps_against(running):
    running.stop()
    running.config_path.write_text("state_dir: state\napi: {listen: '0.0.0.0:0'}\n")

    assert running.spawn().wait(20) == 78


def test_with_include_errors_skip_a_bad_file_costs_its_jobs_at_start_and_reload_and_is_told(running):
    running.config_path.write_text(running.config_path.read_text() + "include_errors: skip\n")
    write(running, "jobs: {more: {every: 1x, shell: x}}")
    reload(running)
    running.stop()
    running.spawn()
    running.wait_for("READY=1\nSTATUS=1 job; included files are left out, 1 mistake: see the journal")
    own, listed = own_health(running), schedulerctl(running, "list")

    assert (own["is_well"], own["config_is_copy"], len(own["config_problems"])) == (False, False, 1)
    assert "the configuration has 1 mistake; the included files with them are left out" in listed.stderr
    assert [job["job_id"] for job in running.client.get("jobs")] == ["tick"]
    assert running.log().count("(its file is left out, since include_errors is skip)") == 2
    write(running, "jobs: {more: {every: 1s, shell: 'true'}}")
    reload(running)
    assert (own_health(running)["is_well"], schedulerctl(running, "list").stderr) == (True, "")
    running.until_run("more", "success")


def opened(pid):
    """Return what a process has open; it goes on opening and closing meanwhile."""
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            yield os.readlink(each)


def test_a_copy_that_cannot_be_written_is_told_until_it_can_and_leaves_a_whole_one(daemon, tmp_path):
    fault = IoFault(tmp_path)
    running = daemon(TICK, env=fault.env).start()
    copy = running.folder / "state" / "last_good" / "config.json"
    for number, calls in enumerate(("open", "write", "sync", "rename", "folder")):
        fault.fail(calls, "state/last_good")
        running.reload({"jobs": {f"j{number}": {"every": "1s", "shell": "true"}}})
        own = own_health(running)

        assert (own["is_well"], "Input/output error" in own["config_copy_error"]) == (False, True), calls
        assert list(json.loads(copy.read_text())["files"]) == [str(running.config_path)]
        assert [path.name for path in copy.parent.iterdir()] == [copy.name]
        assert running.until_run(f"j{number}", "success")
    assert [path for path in opened(running.process.pid) if "last_good" in path] == []
    fault.heal()
    running.reload({"jobs": TICK})
    assert (own_health(running)["is_well"], own_health(running)["config_copy_error"]) == (True, None)


def test_files_and_copy_that_the_disk_does_not_give_back_are_told_apart(daemon, tmp_path):
    fault = IoFault(tmp_path)
    running = daemon(TICK, folder=tmp_path, env={**fault.env, "STATE_DIRECTORY": str(tmp_path / "state")}).start()
    running.stop()
    fault.fail("read", str(running.config_path))
    running.start()
    assert own_health(running)["config_problems"] == [f"{running.config_path}:1:1: cannot be read: Input/output error"]
    running.stop()
    fault.fail("read", str(running.config_path), "last_good/config.json")

    assert running.spawn().wait(30) == 2
    assert "the last good configuration, in" in running.log()
    assert "cannot be used: [Errno 5] Input/output error" in running.log()


@needs_root
@on_disk_of("8M")
def test_a_copy_that_the_disk_has_no_room_for_is_told_in_health_and_the_jobs_run(tmp_path):
    small = SmallDisk(tmp_path, with_state=True)
    older = (small.disk / "state" / "last_good" / "config.json").read_text()
    small.fill()
    os.truncate(small.disk / "filler", (small.disk / "filler").stat().st_size - 4096)
    config = small.daemon.config_path.read_text()
    small.daemon.reload(config + "# longer\n" * 10_000)
    own = small.own()

    assert "No space left on device" in own["config_copy_error"]
    assert not own["is_well"]
    assert (small.disk / "state" / "last_good" / "config.json").read_text() == older
    small.free()
    small.daemon.reload(config)
    assert small.own()["config_copy_error"] is None
    small.check()
