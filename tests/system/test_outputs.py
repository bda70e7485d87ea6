"""Outputs that cannot be made, or that somebody removes: the run, the log and health say so, and nothing reads as empty."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schedulerd.cli.client import PREFIX, ClientError, job_path, run_path
from tests.support.daemon import RunningDaemon
from tests.support.small_disk import needs_root, on_disk_of
from tests.support.waiting import until


@pytest.fixture
def running(daemon, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    script = f"echo begun; read line < {tmp_path}/fifo; echo $line"
    return daemon({"j": {"shell": script}, "said": {"shell": "echo said"}, "quiet": {"shell": "true"}}).start()


def output_of(running: RunningDaemon, run_id: str) -> Path:
    return next((running.folder / "state" / "output").glob(f"*/{run_id}.log"))


def begun(running: RunningDaemon) -> str:
    run_id = running.client.post(job_path("j", "trigger"), wait="false").body["run_id"]
    until(lambda: running.client.get(run_path(run_id))["output_bytes"], "output")
    return run_id


def test_an_output_that_was_removed_while_its_run_goes_on_is_told(running, tmp_path):
    run_id = begun(running)
    output_of(running, run_id).unlink()

    with pytest.raises(ClientError, match=f"the output of run {run_id} was removed") as refused:
        running.client.get(run_path(run_id, "output"))
    assert refused.value.status == 410
    (tmp_path / "fifo").write_text("go\n")
    (row,) = running.until_run("j", "success")
    assert row["details"]["output_error"] == "its output was removed while it was running"
    assert running.log().count(f"run {run_id}: its output was removed while it was running") == 1


def test_who_follows_an_output_that_is_removed_is_told(running, tmp_path):
    run_id = begun(running)
    with running.client.stream(f"{PREFIX}/{run_path(run_id, 'output')}", follow="true", marks="true") as streamed:
        pieces = iter(streamed.pieces)
        assert next(pieces) == b"begun\n"
        output_of(running, run_id).unlink()
        assert b"".join(pieces) == b"\n[schedulerd: the output of the run was removed]\n"
    (tmp_path / "fifo").write_text("go\n")
    running.until_run("j", "success")


def test_whoever_waits_for_a_run_whose_output_is_removed_gets_its_end(running, tmp_path):
    command = [sys.executable, "-m", "schedulerd.cli", "--socket", str(running.socket_path), "run", "-f", "j"]
    said = tmp_path / "said"
    with said.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as waiting:
        try:
            until(lambda: "begun" in said.read_text(), "the output")
            (run,) = running.client.get("running")
            output_of(running, run["run_id"]).unlink()
            until(lambda: "the output of the run was removed" in said.read_text(), "a word")
            (tmp_path / "fifo").write_text("go\n")
            assert waiting.wait(20) == 0
        finally:
            waiting.kill()


def test_an_output_that_was_removed_afterwards_does_not_read_as_empty(running):
    said, quiet = (running.client.post(job_path(name, "trigger")).body["result"]["run_id"] for name in ("said", "quiet"))
    output_of(running, said).unlink()

    with pytest.raises(ClientError, match=f"the output of 5 bytes of run {said} was removed, by `cleanup` or from outside"):
        running.client.get(run_path(said, "output"))
    assert running.client.ask("GET", f"{PREFIX}/{run_path(quiet, 'output')}").status == 200


def test_folders_of_outputs_that_were_removed_are_made_again_and_are_private(running):
    (running.folder / "state" / "output").rmdir()
    running.client.post(job_path("said", "trigger"))

    running.until_run("said", "success")
    for folder in ((running.folder / "state" / "output"), *(running.folder / "state" / "output").iterdir()):
        assert folder.stat().st_mode & 0o777 == 0o700


@needs_root
@on_disk_of("4M,nr_inodes=8")
def test_a_disk_that_takes_no_more_files_fails_runs_with_the_reason_and_health_tells(folder):
    (folder / "state").mkdir(0o700)
    (folder / "state" / "output").symlink_to(folder / "disk")
    running = RunningDaemon(folder, {"jobs": {"j": {"shell": "echo hi"}}}).start()
    try:
        fill = [folder / "disk" / f"filler{number}" for number in range(20)]
        for path in fill:
            try:
                path.touch()
            except OSError:
                break
        why = f"cannot create an output file in {folder}/state/output: No space left on device (it has no free inodes)"
        for _ in range(2):
            done = running.client.post(job_path("j", "trigger")).body["result"]
            assert (done["status"], done["error_message"]) == ("failed", why)
        health = running.client.get("health")
        assert (health["status"], health["scheduler"]["troubles"]) == ("degraded", [why])
        assert running.log().count(f"ERROR   {why}: no job can start") == 1

        for path in fill:
            path.unlink(missing_ok=True)
        running.signal(signal.SIGHUP)
        until(lambda: running.client.get("health")["scheduler"]["is_well"], "health")
        assert running.client.post(job_path("j", "trigger")).body["status"] == "success"
    finally:
        running.close()
