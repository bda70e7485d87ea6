"""What a person meets who installs the package on a clean Debian: one test after the other, on one booted machine.

Run by `run`, which names the root in SCHEDULERD_DEB_ROOT: in its /packages are the package and a later build of it.
"""

import json
import os
import re
import stat
import time
from pathlib import Path

import pytest

from tests.deb.machine import Machine, NotBootedError, until

NOT_BOOTED = 77  # exit status
ROOT = Path(os.environ["SCHEDULERD_DEB_ROOT"])
PACKAGE = next(path.name for path in (ROOT / "packages").iterdir() if "next" not in path.name)
NEXT = next(path.name for path in (ROOT / "packages").iterdir() if "next" in path.name)
UNIT = "schedulerd.service"
CALLS = "i=0; while [ $i -lt 15 ]; do schedulerctl list >/dev/null || echo LOST; i=$((i + 1)); done"
JOBS = """
jobs:
  tick: {every: 2s, shell: "echo tick"}
  long: {shell: "sleep 300; exit 7", kill_grace: 1, overlap: allow}
  patient: {shell: "sleep 4; echo done; exit 7", overlap: allow}
  writes: {shell: "id -un; umask; ulimit -c; touch /tmp/from-a-job; touch /usr/from-a-job"}
  paused: {every: 1s, shell: "true"}
  forges: {shell: "printf 'a\\\\nPRIORITY=0\\\\nMESSAGE=forged\\\\n\\\\033[2J\\\\302\\\\205b'; exit 3"}
"""
NEXT_JOB = "\n  "
WRONG_LINE = JOBS.count("\n") + 1  # of what a test adds below them


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    machine = Machine(ROOT, tmp_path_factory.mktemp("machine"))
    try:
        machine.boot()
    except NotBootedError as error:
        print(error)
        pytest.exit(f"no root can be booted on this host: {error}", NOT_BOOTED)
    yield machine
    print(machine.run("journalctl", "--no-pager", "-o", "short-precise", "-u", "schedulerd*", check=False).stdout[-20000:])
    machine.power_off()
    machine.remove()


def ctl(machine, *words, user=None):
    return json.loads(machine.says("schedulerctl", *words, "--json", user=user))


def property_of(machine, name, unit=UNIT):
    return machine.says("systemctl", "show", "-P", name, unit).strip()


def main_pid(machine):
    return int(property_of(machine, "MainPID"))


def is_ready(machine):
    return (
        property_of(machine, "ActiveState") == "active" and not machine.run("schedulerctl", "list", check=False).returncode
    )


def write_jobs(machine, text):
    path = machine.path("/etc/schedulerd/jobs.d/test.yaml")
    path.write_text(text)
    path.chmod(0o644)


def newest(machine, job):
    rows = ctl(machine, "history", job, "--limit", "1")
    return rows[0] if rows else None


def begin(machine, job):
    """Start a run, and return its row once it has begun."""
    run_id = re.search(r"as run (\S+)", machine.says("schedulerctl", "run", job, "--no-wait"))[1]
    return until(lambda: (row := ctl(machine, "show", run_id))["status"] != "queued" and row, f"a run of {job}")


def ended(machine, run_id):
    return until(
        lambda: (row := ctl(machine, "show", run_id)) and row["status"] not in ("running", "queued") and row, "its end"
    )


def test_from_the_file_to_a_job_in_the_history_only_apt_is_needed(machine):
    start = time.monotonic()
    machine.run("apt-get", "-q", "-y", "install", f"/packages/{PACKAGE}")
    until(lambda: is_ready(machine), "the daemon")
    machine.run("schedulerctl", "run", "health_check")
    row = newest(machine, "health_check")
    seconds = time.monotonic() - start

    print(f"FIGURE from .deb to a job in the history: {seconds:.1f} s")
    assert row["status"] == "success"


def test_it_is_active_enabled_and_ready_and_nothing_failed(machine):
    assert property_of(machine, "ActiveState") == "active"
    assert property_of(machine, "StatusText") == "4 jobs"
    assert machine.says("systemctl", "is-enabled", UNIT, "schedulerd.socket").split() == ["enabled", "enabled"]
    assert "schedulerd" not in machine.says("systemctl", "--failed", "--no-legend")
    assert machine.says("systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", UNIT) == ""


def test_memory_and_start_time(machine):
    machine.run("systemctl", "restart", UNIT)
    memory, keepers = megabytes(machine, main_pid(machine)), [megabytes(machine, each) for each in keeper_pids(machine)]
    began = int(property_of(machine, "ExecMainStartTimestampMonotonic"))
    up = int(property_of(machine, "ActiveEnterTimestampMonotonic"))

    print(f"FIGURE memory: daemon {memory:.0f} MB, keepers {', '.join(f'{each:.0f}' for each in keepers)} MB (RSS)")
    print(f"FIGURE start until READY: {(up - began) / 1e6:.2f} s")
    assert memory < 100
    assert len(keepers) in (1, 2)


def megabytes(machine, pid):
    """Return what a process has in memory."""
    return int(re.search(r"VmRSS:\s+(\d+)", machine.path(f"/proc/{pid}/status").read_text())[1]) / 1024


def keeper_pids(machine):
    found = []
    for path in machine.path("/proc").glob("[0-9]*"):
        try:
            if b"schedulerd.process.keeper" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_only_the_unix_socket_listens(machine):
    listening = "0A"
    for name in ("tcp", "tcp6"):
        rows = [line.split() for line in machine.path("/proc/1/net").joinpath(name).read_text().splitlines()[1:]]
        assert [row[1] for row in rows if row[3] == listening] == []
    found = machine.path("/run/schedulerd/schedulerd.sock").stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert stat.S_IMODE(machine.path("/run/schedulerd").stat().st_mode) == 0o750


def test_root_may_all_members_of_the_group_may_operate_and_others_are_refused(machine):
    machine.run("useradd", "-m", "-G", "schedulerd", "olga")
    machine.run("useradd", "-m", "otto")

    assert "health_check" in {job["job_id"] for job in ctl(machine, "list")}
    assert ctl(machine, "list", user="olga")
    assert machine.run("schedulerctl", "pause", "cleanup", user="olga").returncode == 0
    assert machine.run("schedulerctl", "resume", "cleanup", user="olga").returncode == 0
    refused = machine.run("schedulerctl", "list", user="otto", check=False)
    assert refused.returncode == 3
    assert "you may not use the socket" in refused.stderr
    assert machine.run("cat", "/etc/schedulerd/config.yaml", user="otto", check=False).returncode != 0


def test_what_it_made_is_nobody_elses(machine):
    uid = int(machine.says("id", "-u", "schedulerd"))
    for folder in ("/var/lib/schedulerd", "/var/backups/schedulerd"):
        for path in (machine.path(folder), *machine.path(folder).rglob("*")):
            found = path.lstat()
            assert found.st_uid == uid, path
            assert stat.S_IMODE(found.st_mode) & 0o077 == 0, path


def test_a_reload_takes_the_jobs_of_the_folder(machine):
    before = main_pid(machine)
    write_jobs(machine, JOBS)
    machine.run("schedulerd", "--check-config")
    machine.run("systemctl", "reload", UNIT)
    until(lambda: "tick" in {job["job_id"] for job in ctl(machine, "list")}, "the new jobs")

    assert main_pid(machine) == before
    until(lambda: ctl(machine, "history", "tick", "--status", "success"), "a run of tick")


def test_a_reload_with_mistakes_changes_nothing_and_the_journal_has_where(machine):
    write_jobs(machine, JOBS + "  wrong: {every: 1s, shel: true}\n")
    refused = machine.run("systemctl", "reload", UNIT, check=False)
    errors = until(lambda: records(machine, "-p", "err", "--since", "-1min"), "an error in the journal")

    assert any(f"jobs.d/test.yaml:{WRONG_LINE}:" in each["MESSAGE"] for each in errors), errors
    assert {each["SYSLOG_IDENTIFIER"] for each in errors} <= {"schedulerd", "systemd"}
    assert refused.returncode != 0
    assert property_of(machine, "StatusText").endswith("not reloaded, 2 mistakes: see the journal")
    assert ctl(machine, "history", "tick")
    write_jobs(machine, JOBS)
    machine.run("systemctl", "reload", UNIT)


def test_a_file_that_only_root_can_read_is_a_mistake_though_root_checks(machine):
    machine.path("/etc/schedulerd/jobs.d/test.yaml").chmod(0o600)
    checked = machine.run("schedulerd", "--check-config", check=False)
    write_jobs(machine, JOBS)

    assert (checked.returncode, "jobs.d/test.yaml:1:1" in checked.stderr) == (2, True), checked
    assert machine.run("schedulerd", "--check-config").returncode == 0


def test_a_socket_that_is_opened_anew_is_the_daemons(machine):
    machine.run("systemctl", "restart", "schedulerd.socket")
    until(lambda: is_ready(machine), "the daemon")
    machine.run("systemctl", "stop", "schedulerd.socket")
    until(lambda: property_of(machine, "ActiveState") == "inactive", "the end of the daemon")
    machine.run("systemctl", "start", UNIT)

    assert is_ready(machine)
    assert property_of(machine, "ActiveState", "schedulerd.socket") == "active"


def test_the_hosts_time_zone_is_where_the_configuration_says(machine):
    machine.run("ln", "-sf", "/usr/share/zoneinfo/Europe/Rome", "/etc/localtime")
    command = re.search(r"^timezone: .*\((.*)\)", machine.path("/etc/schedulerd/config.yaml").read_text(), re.MULTILINE)[1]

    assert machine.says("sh", "-c", command).strip().endswith("/Europe/Rome")
    machine.run("ln", "-sf", "/usr/share/zoneinfo/Etc/UTC", "/etc/localtime")


def test_bash_completes_commands_and_jobs(machine):
    for words, found in (("run dail", "daily_analytics"), ("db mig", "migrate")):
        script = (
            "source /usr/share/bash-completion/completions/schedulerctl; "
            f"COMP_WORDS=(schedulerctl {words}) COMP_CWORD=2; _schedulerctl; echo ${{COMPREPLY[*]}}"
        )
        assert machine.says("bash", "-c", script).strip() == found


def records(machine, *words):
    text = machine.says("journalctl", "--no-pager", "-o", "json", "-u", UNIT, *words)
    return [json.loads(line) for line in text.splitlines()]


def test_a_job_runs_as_the_daemons_user_and_within_the_units_restrictions(machine):
    machine.run("schedulerctl", "run", "writes", check=False)
    row = newest(machine, "writes")

    assert row["status"] == "failed"
    assert "touch: cannot touch '/usr/from-a-job'" in row["error_message"]
    output = machine.says("schedulerctl", "logs", row["run_id"])
    assert output.split()[:3] == ["schedulerd", "0077", "0"]
    assert machine.path("/tmp/from-a-job").exists()


def test_the_journal_knows_which_job_and_run_a_record_is_about(machine):
    row = newest(machine, "writes")
    about = (f"RUN_ID={row['run_id']}", "JOB_ID=writes", "-p", "warning")
    record = until(lambda: records(machine, *about), "its record")[0]

    assert record["PRIORITY"] == "4"
    assert record["LOGGER"].startswith("schedulerd.")


def test_s30_what_a_job_writes_is_one_record_of_the_journal_and_forges_no_field(machine):
    machine.run("schedulerctl", "run", "forges", check=False)
    run = newest(machine, "forges")["run_id"]
    found = until(lambda: records(machine, f"RUN_ID={run}", "-p", "warning"), "its record")

    assert [each["PRIORITY"] for each in found] == ["4"]
    assert found[0]["MESSAGE"].endswith(r"last output: a\nPRIORITY=0\nMESSAGE=forged\n\x1b[2J\x85b")
    assert records(machine, "MESSAGE=forged") == []


def test_the_journal_finds_what_people_did_to_a_job_or_run(machine):
    run = begin(machine, "long")["run_id"]
    machine.run("schedulerctl", "cancel", "--wait", run)
    machine.run("schedulerctl", "pause", "long", "--reason", "a test")
    machine.run("schedulerctl", "resume", "long")

    of_job = "\n".join(each["MESSAGE"] for each in records(machine, "JOB_ID=long"))
    of_run = "\n".join(each["MESSAGE"] for each in records(machine, f"RUN_ID={run}"))
    assert [word for word in ("triggered", "cancelled", "paused", "resumed") if f"{word} by user:root" not in of_job] == []
    assert f"job long: triggered by user:root, run {run}" in of_run
    assert f"run {run} of job long: cancelled by user:root" in of_run


def test_a_restart_leaves_running_jobs_alone_and_loses_no_request(machine):
    run = begin(machine, "patient")
    pid = main_pid(machine)
    caller = machine.begin("sh", "-c", CALLS)
    machine.run("systemctl", "restart", UNIT)
    machine.run("systemctl", "restart", UNIT)
    output = caller.communicate()[0]
    row = ended(machine, run["run_id"])

    assert output == ""
    assert main_pid(machine) != pid
    assert (row["status"], row["exit_code"]) == ("failed", 7)
    assert machine.says("schedulerctl", "logs", row["run_id"]) == "done\n"


def test_a_frozen_daemon_is_restarted_by_the_watchdog_and_its_jobs_go_on(machine):
    folder = machine.path("/etc/systemd/system/schedulerd.service.d")
    folder.mkdir()
    (folder / "watchdog.conf").write_text("[Service]\nWatchdogSec=3\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", UNIT)
    run = begin(machine, "patient")
    pid = main_pid(machine)
    start = time.monotonic()
    machine.run("sh", "-c", f"kill -STOP {pid}")
    until(lambda: main_pid(machine) not in (0, pid) and is_ready(machine), "another daemon")

    print(f"FIGURE frozen until another daemon is ready (WatchdogSec=3): {time.monotonic() - start:.1f} s")
    assert ended(machine, run["run_id"])["exit_code"] == 7
    assert list(machine.path("/var/lib/schedulerd").glob("core*")) == []


def test_a_killed_daemon_is_back_and_finds_its_jobs(machine):
    run = begin(machine, "patient")
    pid = main_pid(machine)
    machine.run("sh", "-c", f"kill -KILL {pid}")
    until(lambda: main_pid(machine) not in (0, pid) and is_ready(machine), "another daemon")

    assert ended(machine, run["run_id"])["exit_code"] == 7


def test_a_request_starts_a_stopped_daemon(machine):
    machine.run("systemctl", "stop", UNIT)
    assert property_of(machine, "ActiveState") == "inactive"

    assert ctl(machine, "list")
    assert property_of(machine, "ActiveState") == "active"


def test_stopped_with_its_socket_it_stays_so(machine):
    machine.run("systemctl", "stop", "schedulerd.socket", UNIT)
    refused = machine.run("schedulerctl", "list", check=False)

    assert refused.returncode == 3
    assert property_of(machine, "ActiveState") == "inactive"
    machine.run("systemctl", "start", UNIT)
    assert property_of(machine, "ActiveState", "schedulerd.socket") == "active"
    assert is_ready(machine)


def test_with_on_stop_end_a_stop_waits_for_the_grace_and_ends_what_runs(machine):
    config = machine.path("/etc/schedulerd/config.yaml")
    text = config.read_text()
    config.write_text(text.replace("on_stop: leave", "on_stop: end\nshutdown_grace: 5s"))
    machine.run("systemctl", "restart", UNIT)
    run = begin(machine, "long")
    began, start = machine.says("date", "+@%s").strip(), time.monotonic()
    machine.run("systemctl", "restart", UNIT)  # WatchdogSec is 3 still: a stop that takes longer is no fault
    seconds = time.monotonic() - start
    row = ended(machine, run["run_id"])
    config.write_text(text)
    machine.run("systemctl", "restart", UNIT)

    assert row["status"] == "cancelled"
    assert 5 <= seconds < 30
    assert "watchdog" not in machine.says("journalctl", "--no-pager", "-u", UNIT, "--since", began, "-o", "cat").lower()


def test_a_reboot_keeps_pauses_and_history_and_ends_what_runs_in_peace(machine):
    machine.run("schedulerctl", "pause", "paused", "--reason", "over the reboot")
    runs = begin(machine, "long")
    rows = len(ctl(machine, "history", "tick", "--limit", "100"))
    machine.power_off()
    machine.boot()
    until(lambda: is_ready(machine), "the daemon")
    row = ended(machine, runs["run_id"])

    assert row["status"] == "cancelled", row
    assert next(job for job in ctl(machine, "list") if job["job_id"] == "paused")["is_paused"]
    assert len(ctl(machine, "history", "tick", "--limit", "100")) >= min(rows, 100)


def test_a_crash_of_the_machine_is_told_as_one(machine):
    run = begin(machine, "long")
    machine.destroy()
    machine.boot()
    until(lambda: is_ready(machine), "the daemon")

    assert ended(machine, run["run_id"])["status"] == "abandoned"


def test_after_a_reboot_with_a_bad_file_the_jobs_run_and_a_reload_takes_the_mended_one(machine):
    write_jobs(machine, JOBS + "  wrong: {every: 1x, shell: x}\n")
    machine.power_off()
    machine.boot()
    until(lambda: is_ready(machine), "the daemon")
    began = newest(machine, "tick")["run_id"]
    until(lambda: newest(machine, "tick")["run_id"] > began, "a run of tick")
    listed = machine.run("schedulerctl", "list")

    assert "the configuration has 1 mistake; the last good one" in listed.stderr
    assert property_of(machine, "StatusText").endswith("the last good configuration is used, 1 mistake: see the journal")
    own = json.loads(machine.run("schedulerctl", "health", "--json", check=False).stdout)["scheduler"]
    assert (own["config_is_copy"], f"jobs.d/test.yaml:{WRONG_LINE}:" in own["config_problems"][0]) == (True, True)
    assert any(f"jobs.d/test.yaml:{WRONG_LINE}:" in each["MESSAGE"] for each in records(machine, "-b", "-p", "err"))
    write_jobs(machine, JOBS)
    machine.run("systemctl", "reload", UNIT)
    until(lambda: not machine.run("schedulerctl", "list").stderr, "the mended configuration")
    assert property_of(machine, "StatusText") == f"{4 + JOBS.count(NEXT_JOB)} jobs"


def test_a_first_start_with_mistakes_fails_once_tells_who_asks_and_is_back_at_a_request_when_mended(machine):
    config = machine.path("/etc/schedulerd/config.yaml")
    text = config.read_text()
    machine.run("systemctl", "stop", UNIT)
    machine.run("rm", "-r", "/var/lib/schedulerd/last_good")
    config.write_text(text + "nonsense: 1\n")
    machine.run("systemctl", "start", UNIT, check=False)
    until(lambda: property_of(machine, "ActiveState") == "failed", "the failure")
    assert property_of(machine, "ExecMainStatus") == "2"
    asked = [machine.run("schedulerctl", "list", check=False) for _ in range(15)]

    assert {each.returncode for each in asked} & {0} == set()
    assert "schedulerd cannot start as it is configured" in asked[0].stderr
    until(lambda: property_of(machine, "ActiveState") == "failed", "the failure")
    assert property_of(machine, "NRestarts") == "0"
    assert property_of(machine, "ActiveState", "schedulerd.socket") == "active"
    config.write_text(text)
    assert ctl(machine, "list")
    assert property_of(machine, "ActiveState") == "active"


def test_the_strict_mode_runs_jobs_whose_tmp_outlives_a_restart(machine):
    folder = machine.path("/etc/systemd/system/schedulerd.service.d")
    (folder / "strict.conf").write_text(machine.path("/usr/share/doc/schedulerd/examples/systemd/strict.conf").read_text())
    write_jobs(machine, JOBS + '  keeps: {shell: "echo mine > /tmp/mine; sleep 4; cat /tmp/mine"}\n')
    begin_anew(machine)
    run = begin(machine, "keeps")
    machine.run("systemctl", "restart", UNIT)
    row = ended(machine, run["run_id"])

    assert row["status"] == "success", row
    assert machine.says("schedulerctl", "logs", row["run_id"]) == "mine\n"
    assert not machine.path("/tmp/mine").exists()
    print("FIGURE exposure of the strict mode, files and running:", exposure(machine, 1.7))
    (folder / "strict.conf").unlink()


def begin_anew(machine):
    """Restart the daemon and its keepers: what runs is ended first."""
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=USR1", UNIT)
    machine.run("systemctl", "restart", UNIT)
    until(lambda: is_ready(machine), "the daemon")


def exposure(machine, most):
    """Return how far the unit's files and the running unit are open by systemd's judgement; the files at `most` so far."""
    judge = ("systemd-analyze", "security", "--no-pager")
    files = machine.run(*judge, "--offline=true", f"--threshold={most * 10:.0f}", UNIT, check=False)
    assert files.returncode == 0, files.stdout
    running = machine.run(*judge, UNIT, check=False)
    return [re.search(r"(\d+\.\d+) \w+", done.stdout.splitlines()[-1])[0] for done in (files, running)]


def told_by(machine, pattern):
    """Return a command that the drop-in as-root.conf tells in its comment."""
    text = machine.path("/usr/share/doc/schedulerd/examples/systemd/as-root.conf").read_text().replace("\n# ", " ")
    return re.search(pattern, text)[0]


def give_the_backups_to_root(machine):
    for pattern in (r"printf 'd /var/backups/.*?\.conf", r"chown root:root \S+", r"find \S+ -user schedulerd -exec.*?{} \+"):
        machine.run("sh", "-c", told_by(machine, pattern))
    machine.run("systemd-tmpfiles", "--create")
    assert {path.stat().st_uid for path in [machine.path(BACKUPS), *machine.path(BACKUPS).iterdir()]} == {0}


def give_the_backups_back(machine):
    machine.path("/etc/tmpfiles.d/schedulerd.conf").unlink()
    machine.run("sh", "-c", told_by(machine, r"find \S+ -user root -exec.*?{} \+"))


BACKUPS = "/var/backups/schedulerd"


def test_as_root_jobs_may_have_users(machine):
    folder = machine.path("/etc/systemd/system/schedulerd.service.d")
    (folder / "as-root.conf").write_text(machine.path("/usr/share/doc/schedulerd/examples/systemd/as-root.conf").read_text())
    write_jobs(machine, JOBS + '  olga: {shell: "id -un; pwd; touch ~/written", user: olga, cwd: /home/olga}\n')
    begin_anew(machine)
    machine.run("schedulerctl", "run", "olga")
    row = newest(machine, "olga")

    assert machine.says("schedulerctl", "logs", row["run_id"]).split() == ["olga", "/home/olga"]
    assert machine.path("/home/olga/written").exists()
    assert ctl(machine, "list", user="olga")
    refused = machine.run("schedulerctl", "run", "history_backup", check=False)
    assert "chown root /var/backups/schedulerd" in refused.stdout + refused.stderr + json.dumps(
        newest(machine, "history_backup")
    )
    give_the_backups_to_root(machine)
    machine.run("schedulerctl", "run", "history_backup")
    assert ctl(machine, "backups")[0]["job_id"] == "history_backup"
    print("FIGURE exposure as root, files and running:", exposure(machine, 3.5))
    (folder / "as-root.conf").unlink()
    (folder / "watchdog.conf").unlink()
    write_jobs(machine, JOBS)
    give_the_backups_back(machine)
    begin_anew(machine)
    machine.run("schedulerctl", "run", "history_backup")
    print("FIGURE exposure of the unit as shipped, files and running:", exposure(machine, 2.0))


PLANT = """
for folder in $(find /var/lib/schedulerd /var/backups/schedulerd /run/schedulerd -type d -user schedulerd 2>/dev/null); do
    for target in etc/shadow etc srv/precious; do ln -sfn /$target $folder/planted-$(basename $target); done
    ! ln /etc/shadow $folder/hard 2>/dev/null || echo "a hard link: $folder"
done
"""
DROP_INS = "/etc/systemd/system/schedulerd.service.d"
BACKUPS = "/var/backups/schedulerd"
WATCHED = "/etc/shadow /etc/passwd /etc/cron.d /srv/precious /srv/precious/file"


def plant(machine):
    """As the daemon's user, lead each folder of it elsewhere (S37); return how what must stay as it is looks now."""
    machine.run("sh", "-c", "mkdir -p -m 0700 /srv/precious && echo precious >/srv/precious/file")
    assert machine.says("sh", "-c", PLANT, user="schedulerd") == ""
    assert machine.path("/var/lib/schedulerd/output/planted-shadow").is_symlink()
    return watched(machine)


def watched(machine):
    return machine.says("sh", "-c", f"stat -c '%n %F %u:%g %a %s %i %Y' {WATCHED}; sha256sum /etc/shadow /srv/precious/file")


def test_an_upgrade_leaves_state_configuration_and_running_jobs_alone(machine):
    config = machine.path("/etc/schedulerd/config.yaml")
    config.write_text(config.read_text().replace("timezone: UTC ", "timezone: Europe/Rome "))
    before = plant(machine)
    run = begin(machine, "patient")
    pid = main_pid(machine)
    machine.run("apt-get", "-q", "-y", "-o", "Dpkg::Options::=--force-confold", "install", f"/packages/{NEXT}")
    until(lambda: main_pid(machine) not in (0, pid) and is_ready(machine), "the next daemon")

    assert watched(machine) == before
    assert "next" in machine.says("dpkg-query", "-W", "schedulerd")
    assert ("Europe/Rome" in config.read_text(), "of the next build" in config.read_text()) == (True, False)
    assert "of the next build" in config.with_suffix(".yaml.dpkg-dist").read_text()
    assert ended(machine, run["run_id"])["exit_code"] == 7
    assert next(job for job in ctl(machine, "list") if job["job_id"] == "paused")["is_paused"]


def test_removed_it_leaves_no_process_and_keeps_history_and_configuration(machine):
    begin(machine, "long")
    before = plant(machine)
    machine.run("apt-get", "-q", "-y", "remove", "schedulerd")

    assert watched(machine) == before
    assert of_user(machine) == []
    assert machine.path("/var/lib/schedulerd/history.db").exists()
    assert machine.path("/etc/schedulerd/config.yaml").exists()
    assert not machine.path("/run/schedulerd/schedulerd.sock").exists()


def of_user(machine):
    """Return the command lines of what runs as the daemon's user."""
    uid = int(machine.says("id", "-u", "schedulerd"))
    found = []
    for path in machine.path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == uid:
                found.append((path / "cmdline").read_bytes())
        except OSError:
            continue
    return found


def test_installed_again_it_has_its_history(machine):
    machine.run("apt-get", "-q", "-y", "install", f"/packages/{NEXT}")
    until(lambda: is_ready(machine), "the daemon")

    assert newest(machine, "long")["status"] == "cancelled"


def test_purged_it_is_gone_but_for_what_it_names(machine):
    machine.run("schedulerctl", "run", "history_backup")
    machine.run("rm", "/etc/schedulerd/jobs.d/test.yaml")
    before = plant(machine)
    machine.run("sh", "-c", "cd /var/lib/schedulerd && mv output aside && ln -s /srv/precious output", user="schedulerd")
    machine.run("sh", "-c", f"mkdir -p {DROP_INS} && echo '[Service]' >{DROP_INS}/own.conf")
    said = machine.run("apt-get", "-q", "-y", "purge", "schedulerd")

    assert watched(machine) == before
    assert [path for path in machine.path(BACKUPS).iterdir() if not path.is_symlink()]
    assert machine.run("id", "schedulerd").returncode == 0  # the backups are that user's
    named = (
        "the user and group schedulerd stay",
        f"{DROP_INS} stay",
        f"the backups in {BACKUPS} stay",
    )
    assert [words for words in named if words not in said.stdout + said.stderr] == []
    machine.run("rm", "-r", BACKUPS, DROP_INS)
    assert remains(machine) == {"/etc/group", "/etc/gshadow", "/etc/passwd", "/etc/shadow"}


def remains(machine):
    """Return what is of the package: by name, by owner, and what names it, but for logs and lists of packages."""
    skipped = " -o ".join(f"-path {each}" for each in ("/proc", "/sys", "/packages", "/var/cache/apt", "/var/log"))
    mine = "-name '*schedulerd*' -o -user schedulerd -o -group schedulerd"
    found = machine.says("sh", "-c", f"find / \\( {skipped} \\) -prune -o \\( {mine} \\) -print 2>/dev/null || true")
    naming = machine.run("grep", "-rls", "schedulerd", "/etc", "/var/lib/systemd", "/var/lib/dpkg/info", check=False).stdout
    return {line.removesuffix("-") for line in (found + naming).splitlines()}


def test_purged_again_it_leaves_its_user_and_what_is_mounted(machine):
    machine.run("apt-get", "-q", "-y", "install", f"/packages/{NEXT}")
    until(lambda: is_ready(machine), "the daemon")
    machine.run("systemctl", "stop", "schedulerd.socket", UNIT)
    machine.run("mount", "-t", "tmpfs", "tmpfs", "/var/lib/schedulerd")
    machine.run("apt-get", "-q", "-y", "purge", "schedulerd")

    assert machine.run("id", "schedulerd").returncode == 0  # files of its jobs may be anywhere
    assert not machine.path("/var/backups/schedulerd").exists()
    assert "schedulerd" not in machine.says("dpkg", "-l")
