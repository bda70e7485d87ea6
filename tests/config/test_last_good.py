"""The last good configuration: when its copy is used, when it is refused, and what a crash leaves of it."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from datetime import timedelta

import pytest

from schedulerd.config.files import Files
from schedulerd.config.last_good import CopyError, keep, load_to_start
from schedulerd.config.loader import load
from schedulerd.core.errors import ConfigError
from tests.support.builders import NOON

MAIN = """\
state_dir: state
include: [jobs.d/*.yaml, more.yaml]
calendars: {feasts: feasts.yaml, works: works.ics}
jobs:
  first: {every: 1m, shell: "true", blackout: {calendar: feasts}}
  works: {every: 1m, shell: "true", blackout: {calendar: works}}
"""
WORKS = """\
BEGIN:VCALENDAR
BEGIN:VEVENT
UID:1
DTSTART:20270101T000000Z
DURATION:PT1H
END:VEVENT
END:VCALENDAR
"""
FILES = {
    "config.yaml": MAIN,
    "jobs.d/a.yaml": 'jobs: {a: {cron: "5 4 * * *", command: [/bin/true], env: {PASSWORD: hunter2}}}\n',
    "jobs.d/b.yaml": "jobs: {b: {every: 2m, shell: x}}\n",
    "more.yaml": "defaults: {timezone: Europe/Rome}\njobs: {more: {at: '2030-01-01T00:00:00', shell: 'echo \u00e4'}}\n",
    "feasts.yaml": "- 2026-12-25\n",
    "works.ics": WORKS,
}


@pytest.fixture
def place(tmp_path):
    """A configuration of several files that was in force at noon."""
    for name, text in FILES.items():
        write(tmp_path / name, text)
    (tmp_path / "state").mkdir(0o700)
    keep_as_it_is(tmp_path)
    return tmp_path


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def keep_as_it_is(place, at=NOON):
    files = Files()
    config = load(str(place / "config.yaml"), files)
    keep(config, files, str(place / "state"), at)
    return config


def copy_of(place):
    return place / "state" / "last_good" / "config.json"


def start(place, is_strict=False):
    return load_to_start(str(place / "config.yaml"), is_strict)


def change(name, text):
    return lambda place: write(place / name, text)


MISTAKES = {
    "an unknown setting": change("config.yaml", MAIN + "stat_dir: x\n"),
    "a main file that is no YAML": change("config.yaml", MAIN + '  c: {shell: "x}\n'),
    "a main file that is no YAML above its state_dir": change("config.yaml", "timezone: [\n" + MAIN),
    "a main file in which others can write": lambda place: (place / "config.yaml").chmod(0o666),
    "no main file": lambda place: (place / "config.yaml").unlink(),
    "an empty main file": change("config.yaml", ""),
    "an included file that is no YAML": change("jobs.d/a.yaml", "jobs: {a: {"),
    "an included file with a mistake": change("jobs.d/a.yaml", "jobs: {a: {every: 1x, shell: x}}"),
    "an included file more, with a mistake": change("jobs.d/c.yaml", "jobs: {c: {every: 1x, shell: x}}"),
    "a job in two files": change("jobs.d/c.yaml", "jobs: {b: {every: 1m, shell: x}}"),
    "an included file that is a folder": lambda place: (place / "jobs.d" / "d.yaml").mkdir(),
    "an included file that is a dead link": lambda place: (place / "jobs.d" / "d.yaml").symlink_to("nothing"),
    "no file of an include that names it": lambda place: (place / "more.yaml").unlink(),
    "no calendar": lambda place: (place / "feasts.yaml").unlink(),
    "a damaged calendar": change("works.ics", WORKS[:80]),
    "a job that follows one that is gone": change("jobs.d/b.yaml", "jobs: {c: {after: {job: b}, shell: x}}"),
    "a zone that is none": change("config.yaml", MAIN + "timezone: Europe/Roma\n"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_with_any_mistake_the_last_good_configuration_is_used_as_it_was(place, monkeypatch, mistake):
    monkeypatch.setenv("STATE_DIRECTORY", str(place / "state"))
    good = load(str(place / "config.yaml"))
    mistake(place)
    with pytest.raises(ConfigError) as refused:
        load(str(place / "config.yaml"))

    loaded = start(place)

    assert loaded.config == good
    assert loaded.files.is_copy
    assert loaded.problems == tuple(refused.value.problems)
    assert loaded.loaded_at == NOON


@pytest.mark.parametrize(
    "text",
    [
        "{state_dir: state, jobs: {a: {}}}",
        "state_dir: state # here\n\tx",
        "jobs: }\nstate_dir:   'state'\n",
        'state_dir: "state"\nstate_dir: [\n',
    ],
)
def test_the_state_directory_is_found_in_a_file_that_cannot_be_read_as_yaml(place, text):
    write(place / "config.yaml", text)

    assert start(place).files.is_copy


def test_without_mistakes_the_files_are_used(place):
    write(place / "jobs.d" / "c.yaml", "jobs: {c: {shell: x}}")
    loaded = start(place)

    assert not loaded.files.is_copy
    assert loaded.problems == ()
    assert "c" in loaded.config.jobs


def test_a_strict_start_and_a_first_one_fail_with_the_mistakes(place):
    write(place / "jobs.d" / "a.yaml", "jobs: {")
    with pytest.raises(ConfigError):
        start(place, is_strict=True)
    copy_of(place).unlink()
    with pytest.raises(ConfigError):
        start(place)


def test_the_copy_is_nobody_elses(place):
    assert stat.S_IMODE(copy_of(place).stat().st_mode) == 0o600
    assert stat.S_IMODE(copy_of(place).parent.stat().st_mode) == 0o700
    assert [path.name for path in copy_of(place).parent.iterdir()] == ["config.json"]


def change_record(place, **fields):
    record = {**json.loads(copy_of(place).read_text()), **fields}
    copy_of(place).write_text(json.dumps(record))


SPOILED = {
    "is damaged": lambda place: change_record(place, loaded_at="2026-01-01T00:00:00Z"),
    "damaged": lambda place: os.truncate(copy_of(place), 100),
    "it is damaged": lambda place: copy_of(place).write_text("[1]"),
    ": it is damaged": lambda place: copy_of(place).write_text("[" * 200_000),
    "in a format that this version does not read": lambda place: change_record(place, format=2, version="99.0"),
    "mode 602) can be changed by others": lambda place: copy_of(place).chmod(0o602),
    "mode 770) can be changed by others": lambda place: copy_of(place).parent.chmod(0o770),
}


@pytest.mark.parametrize(("why", "spoil"), SPOILED.items(), ids=SPOILED)
def test_a_copy_that_cannot_be_trusted_or_read_is_not_used_and_that_is_told(place, caplog, why, spoil):
    spoil(place)
    write(place / "jobs.d" / "a.yaml", "jobs: {")
    with pytest.raises(ConfigError) as refused:
        start(place)

    assert "a.yaml" in str(refused.value)
    assert why in caplog.text


@pytest.mark.root("only root can give files away")
@pytest.mark.parametrize("name", ["state/last_good", "state/last_good/config.json"])
def test_a_copy_of_another_user_is_not_used(place, name):
    os.chown(place / name, 65534, 65534)
    write(place / "jobs.d" / "a.yaml", "jobs: {")
    with pytest.raises(ConfigError):
        start(place)


def test_a_copy_is_not_used_for_another_configuration(place, caplog):
    write(place / "other.yaml", "state_dir: state\njobs: {")
    with pytest.raises(ConfigError):
        load_to_start(str(place / "other.yaml"), False)

    assert f"it is of the configuration {place}/config.yaml" in caplog.text


def test_the_copy_of_another_daemon_in_the_usual_place_is_no_matter(place, caplog, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(place / "state"))
    write(place / "other.yaml", "state_dir: elsewhere\njobs: {")
    with pytest.raises(ConfigError):
        load_to_start(str(place / "other.yaml"), False)

    assert caplog.text == ""


def test_a_copy_in_which_this_version_finds_mistakes_is_not_used(place, caplog, monkeypatch):
    write(place / "jobs.d" / "a.yaml", "jobs: {")
    monkeypatch.setattr(
        "schedulerd.config.job_reader.zone_named", lambda name: (_ for _ in ()).throw(ValueError(f"no zone {name}"))
    )
    with pytest.raises(ConfigError):
        start(place)

    assert "this version finds mistakes in it" in caplog.text


def test_a_copy_that_the_state_directory_of_before_still_has_is_removed(place, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(place / "state"))
    write(place / "config.yaml", MAIN.replace("state_dir: state", "state_dir: moved"))
    (place / "moved").mkdir(0o700)
    files = Files()
    keep(load(str(place / "config.yaml"), files), files, str(place / "moved"), NOON)

    assert not copy_of(place).exists()
    assert (place / "moved" / "last_good" / "config.json").exists()


@pytest.mark.root("only a daemon that is root has jobs of other users")
def test_a_user_who_is_gone_costs_only_their_jobs(place, monkeypatch):
    write(place / "jobs.d" / "a.yaml", "jobs: {a: {shell: x, user: daemon}}")
    keep_as_it_is(place)
    monkeypatch.setattr("schedulerd.host.accounts.user_of", lambda name: {}[name])
    loaded = start(place)

    assert [problem.text for problem in loaded.problems] == ["user 'daemon' does not exist on this host"]
    assert loaded.config.jobs["a"].user == "daemon"


def test_a_file_of_any_bytes_is_copied_as_it_is(place):
    (place / "works.ics").write_bytes(WORKS.encode().replace(b"UID:1", b"UID:\xff\xfe\x00"))
    config = keep_as_it_is(place)
    write(place / "jobs.d" / "a.yaml", "jobs: {")

    assert start(place).config == config


KEEP = """
import sys
from schedulerd.core.clock import SystemClock
from schedulerd.config.loader import load
from schedulerd.config.files import Files
from schedulerd.config.last_good import keep
files = Files()
config = load(sys.argv[1], files)
print("ready", flush=True)
while True:
    keep(config, files, sys.argv[2], SystemClock().now())
"""


def begin_keeping(place, before=None):
    command = [sys.executable, "-c", KEEP, str(place / "config.yaml"), str(place / "state")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=before)  # noqa: PLW1509


def test_a_kill_while_it_is_written_leaves_the_older_or_the_newer_whole(place):
    write(place / "jobs.d" / "a.yaml", "jobs:\n" + "".join(f"  j{number}: {{shell: x}}\n" for number in range(300)))
    for _ in range(4):
        with begin_keeping(place) as child:
            child.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.01)
            child.kill()
        write(place / "more.yaml", "jobs: {")
        assert len(start(place).config.jobs) in (5, 304)
        write(place / "more.yaml", FILES["more.yaml"])


def limit_files():
    """End the process in the middle of a write (SIGXFSZ)."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def test_a_process_that_ends_in_the_middle_of_writing_leaves_the_older(place):
    write(place / "jobs.d" / "b.yaml", "jobs: {b: {every: 3m, shell: x}}\n")
    with begin_keeping(place, limit_files) as child:
        child.communicate()
    older = json.loads(copy_of(place).read_text())

    assert "every: 2m" in older["files"][str(place / "jobs.d" / "b.yaml")]
    keep_as_it_is(place, NOON + timedelta(days=1))
    assert "every: 3m" in copy_of(place).read_text()


def test_a_folder_that_others_can_change_takes_no_copy(place):
    copy_of(place).parent.chmod(0o777)
    with pytest.raises(CopyError, match="can be changed by others"):
        keep_as_it_is(place)
