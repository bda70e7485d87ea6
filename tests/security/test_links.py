"""S26, S39 and P52: root follows nobody. Where others can put a link, a FIFO or a folder, nothing outside changes."""

import fcntl
import os
import pwd
import re
import stat
import subprocess
import sys
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from schedulerd.__main__ import backup_warnings
from schedulerd.actions.probes.storage import probe
from schedulerd.backups.catalogue import Catalogue
from schedulerd.backups.create import create
from schedulerd.backups.manifest import BackupOwner
from schedulerd.backups.source import BackupError
from schedulerd.backups.verify import verify
from schedulerd.cli import main
from schedulerd.config.files import Files
from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import ConfigError, NotFoundError
from schedulerd.core.models import Actor, Role, new_run_id
from schedulerd.service import backups
from schedulerd.service.backups import Backups
from schedulerd.store.sqlite.store import SqliteStore
from tests.support.builders import a_job

pytestmark = pytest.mark.root("only root can be led to what is not its own")

STRANGER, GAMES = 65534, 60
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HERE = BackupOwner("host", "daemon")


@pytest.fixture
def theirs(tmp_path):
    """A folder of a stranger, in one of theirs."""
    for each in (tmp_path / "home", tmp_path / "home" / "theirs"):
        each.mkdir(mode=0o700)
        os.chown(each, STRANGER, STRANGER)
    return tmp_path / "home" / "theirs"


@pytest.fixture
def victim(tmp_path):
    """A file of root's in a place of root's; nothing may become of either."""
    place = tmp_path / "roots"
    place.mkdir(mode=0o700)
    made = place / "victim"
    made.write_text("precious")
    made.chmod(0o640)
    before = seen(made)
    yield made
    assert seen(made) == before


def seen(path: Path):
    status = path.stat()
    return (
        path.read_bytes(),
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_ino,
        status.st_nlink,
        os.listdir(path.parent),
    )


def order_for(directory: Path, source: Path) -> dict:
    """Return the order for a backup of the folder `source`."""
    return {
        **{name: [] for name in ("exclude", "recipients")}, **dict.fromkeys(("compress", "encrypt"), "none"),
        **dict.fromkeys(("url", "schema", "pg_bin")), **HERE._asdict(),
        "directory": str(directory), "folder": str(source), "job_id": "b", "run_id": new_run_id(NOW), "source": "src",
        "kind": "folder", "keep": {}, "min_size": 1, "max_shrink": 100, "min_free": 0, "timezone": "UTC",
    }  # fmt: skip


def back_up(directory: Path, source: Path):
    return create(order_for(directory, source), NOW)


# A folder in whose place others could put another one


def of_a_stranger(folder):
    os.chown(folder, STRANGER, STRANGER)


def writable_by_a_group(folder):
    os.chown(folder, 0, GAMES)
    folder.chmod(0o770)


def open_to_all_like_tmp(folder):
    folder.chmod(0o1777)


def below_a_folder_of_a_stranger(folder):
    os.chown(folder.parent, STRANGER, STRANGER)


def below_a_link_of_a_stranger(folder):
    real = folder.parent.rename(folder.parent.with_name("real"))
    folder.parent.symlink_to(real)
    os.lchown(folder.parent, STRANGER, STRANGER)


def not_there_below_a_folder_of_a_stranger(folder):
    folder.rmdir()
    below_a_folder_of_a_stranger(folder)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (of_a_stranger, r"in/backups \(owner nobody, mode 0700\).*: chown root \S+/in/backups; or.*`user: nobody`"),
        (writable_by_a_group, r"in/backups \(owner root, mode 0770\).*: chmod go-w \S+/in/backups$"),
        (open_to_all_like_tmp, r"in/backups \(owner root, mode 1777\).*: install -d -m 700 \S+/in/backups/NAME$"),
        (below_a_folder_of_a_stranger, r"its folder \S+/in \(owner nobody, mode 0755\).*: use a path .* not below \S+/in$"),
        (below_a_link_of_a_stranger, r"its folder \S+/in \(owner nobody, mode 0777\).*: use a path .* not below \S+/in$"),
        (
            not_there_below_a_folder_of_a_stranger,
            r"its folder \S+/in \(owner nobody, mode 0755\).*: use a path .* not below \S+/in$",
        ),
    ],
)
def test_s39_root_makes_no_backup_where_others_could_lead_it_elsewhere(tmp_path, spoil, why):
    folder = tmp_path / "in" / "backups"
    folder.parent.mkdir(mode=0o755)
    folder.mkdir(mode=0o700)
    spoil(folder)

    with pytest.raises(BackupError) as error:
        back_up(folder, tmp_path)
    assert re.search(why, str(error.value))
    assert not folder.exists() or os.listdir(folder) == []


def test_s39_a_folder_of_roots_in_a_place_where_all_may_add_is_made_and_used(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "data").mkdir()

    back_up(shared / "new" / "backups", tmp_path / "data")
    assert [path.stat().st_mode & 0o777 for path in (shared / "new", shared / "new" / "backups")] == [0o755, 0o700]


def test_s39_a_folder_of_roots_that_a_group_may_write_holds_no_backup_that_would_be_doubted():
    other = pwd.getpwnam("www-data")
    with (
        TemporaryDirectory() as folder,
        as_user(other, folder),
        Catalogue(folder) as catalogue,
        pytest.raises(BackupError, match=rf"does not belong to www-data, as its backups would: chown www-data {folder}$"),
        catalogue.partial("b", new_run_id(NOW), HERE),
    ):
        pass


@contextmanager
def as_user(user, folder):
    """Do as a process of another user does, who may write a folder by its group alone; leave nothing there."""
    os.chown(folder, 0, user.pw_gid)
    os.chmod(folder, 0o770)
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
    assert os.listdir(folder) == []


def test_s39_no_folder_is_made_through_a_link_that_was_put_there(tmp_path, victim):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link_of_a_stranger(shared / "new", victim.parent)

    with pytest.raises(BackupError, match=r"not below \S+/new$"):
        back_up(shared / "new" / "backups", tmp_path)


def link_of_a_stranger(path, target):
    path.symlink_to(target)
    os.lchown(path, STRANGER, STRANGER)


# The folder of a job's user, in which the daemon is at work as root


@pytest.fixture
def backup(theirs, tmp_path):
    """The name of a backup in the stranger's folder that is the stranger's, as a job with `user:` makes it."""
    (tmp_path / "data").mkdir()
    place = tmp_path / "made"
    manifest = back_up(place, tmp_path / "data").manifest
    for path in place.iterdir():
        os.chown(path, STRANGER, STRANGER)
        path.rename(theirs / path.name)
    return manifest.filename


def with_the_folder_elsewhere(theirs, _backup, victim):
    theirs.rename(theirs.with_name("away"))
    link_of_a_stranger(theirs, victim.parent)


def with_a_link_for_the_new_manifest(theirs, backup, victim):
    link_of_a_stranger(theirs / f".{backup}.new", victim)


def with_a_link_for_the_manifest(theirs, backup, victim):
    (theirs / f"{backup}.json").rename(theirs / "kept")
    link_of_a_stranger(theirs / f"{backup}.json", victim)


def with_a_fifo_for_the_manifest(theirs, backup, _victim):
    (theirs / f"{backup}.json").unlink()
    os.mkfifo(theirs / f"{backup}.json")


def with_a_link_for_the_file(theirs, backup, victim):
    (theirs / backup).unlink()
    link_of_a_stranger(theirs / backup, victim)


def with_a_fifo_for_the_file(theirs, backup, _victim):
    (theirs / backup).unlink()
    os.mkfifo(theirs / backup)


def with_a_second_name_for_the_file(theirs, backup, _victim):
    os.link(theirs / backup, theirs / "second")


SWAPS = [
    with_the_folder_elsewhere, with_a_link_for_the_new_manifest, with_a_link_for_the_manifest, with_a_fifo_for_the_manifest,
    with_a_link_for_the_file, with_a_fifo_for_the_file, with_a_second_name_for_the_file,
]  # fmt: skip


@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("is_open", [True, False])
def test_p52_whatever_a_user_swaps_root_changes_nothing_outside_of_their_folder(theirs, backup, victim, swap, is_open):
    if not is_open:
        swap(theirs, backup, victim)
    with suppress(BackupError):
        catalogue = Catalogue(str(theirs), makers=[STRANGER])
        if is_open:
            swap(theirs, backup, victim)
        with catalogue:
            for act in (
                lambda: catalogue.change(backup, hold={"reason": "x"}), lambda: verify(catalogue, backup, NOW),
                lambda: catalogue.forget(backup), lambda: catalogue.clear(HERE), lambda: catalogue.remove(backup),
            ):  # fmt: skip
                with suppress(NotFoundError, BackupError, FileNotFoundError):
                    act()


def a_link(place, victim):
    link_of_a_stranger(place, victim.parent)


def a_fifo(place, _victim):
    os.mkfifo(place)


def a_folder_with_links(place, victim):
    place.mkdir()
    link_of_a_stranger(place / "content", victim)
    link_of_a_stranger(place / "deep", victim.parent)
    os.chown(place, STRANGER, STRANGER)


def a_folder_of_roots(place, _victim):
    place.mkdir(0o755)
    (place / "roots").write_text("precious")


@pytest.mark.parametrize("left", [a_link, a_fifo, a_folder_with_links, a_folder_of_roots])
def test_p52_what_a_user_leaves_for_a_partial_backup_leads_nowhere(theirs, victim, left):
    place = theirs / f".b-{new_run_id(NOW)}.{HERE.tag}.partial"
    left(place, victim)
    with Catalogue(str(theirs), makers=[STRANGER]) as catalogue:
        removed = catalogue.clear(HERE)

    assert removed == ([place.name] if left is a_folder_with_links else [])
    assert (place / "roots").exists() or left is not a_folder_of_roots


def test_p52_in_the_folder_of_a_user_root_has_that_users_rights(theirs, victim):
    with Catalogue(str(theirs), makers=[STRANGER]), pytest.raises(PermissionError):
        victim.read_text()
    assert victim.read_text() == "precious"


def test_p52_a_folder_of_roots_that_a_user_could_replace_is_not_taken_for_theirs(theirs):
    os.chown(theirs, 0, 0)

    with pytest.raises(BackupError, match=r"its folder \S+/home \(owner nobody"):
        Catalogue(str(theirs), makers=[STRANGER])


def test_s39_backups_in_a_strangers_folder_are_shown_only_when_a_job_makes_them_as_that_user(theirs, backup, caplog):
    def names(user):
        job = a_job(user=user)
        return [
            each["filename"] for each in Backups(lambda: {str(theirs): [job]}, SystemClock(), bool).list_backups(*NO_BOUNDS)
        ]

    assert (names("nobody"), names(None)) == ([backup], [])
    assert "use a path that is not below" in caplog.text


def test_s39_a_folder_that_is_refused_keeps_no_backup_in_another_one(theirs, backup, tmp_path):
    (tmp_path / "open").mkdir()
    os.chown(tmp_path / "open", STRANGER, GAMES)
    (tmp_path / "open").chmod(0o770)
    job = a_job(user="nobody")
    kept = Backups(lambda: {str(tmp_path / "open"): [job], str(theirs): [job]}, SystemClock(), bool)

    assert kept.hold(backup, Actor("x", Role.ADMIN), "why")["hold"]["reason"] == "why"
    with pytest.raises(BackupError, match=rf"backup 'other' not found.*: chmod go-w {tmp_path}/open$"):
        kept.show("other")


NO_BOUNDS = (None, None, None, True)


def test_s26_who_keeps_their_folder_locked_holds_nobody_up(theirs, backup, monkeypatch):
    monkeypatch.setattr(backups, "PATIENCE", 0.2)
    kept = Backups(lambda: {str(theirs): [a_job(user="nobody")]}, SystemClock(), bool)
    descriptor = os.open(theirs, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(BackupError, match=f"fuser -v {theirs}"):
            kept.hold(backup, Actor("x", Role.ADMIN), None)
    finally:
        os.close(descriptor)


def test_s39_whoever_reads_a_folder_and_locks_it_stops_no_backup_without_a_word(tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o755)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with (
            Catalogue(str(folder), patience=0.2) as catalogue,
            pytest.raises(BackupError, match=rf"fuser -v {folder}` lists the processes; .*: chmod 700 {folder}$"),
            catalogue.partial("b", new_run_id(NOW), HERE),
        ):
            pass
    finally:
        os.close(descriptor)
    assert 0 < signature(Catalogue).parameters["patience"].default <= 600


# Other places that others can change


def test_p52_a_probe_of_a_folder_puts_no_name_into_it(theirs):
    before = theirs.stat().st_mtime_ns

    assert probe(str(theirs), {}, "run", None)["status"] == "healthy"
    assert (theirs.stat().st_mtime_ns, os.listdir(theirs)) == (before, [])


@pytest.mark.parametrize("setting", ["state_dir", "store", "api"])
def test_p52_root_does_not_start_on_files_that_others_could_put_elsewhere(daemon, theirs, setting):
    values = {"state_dir": f"{theirs}/state", "store": f"sqlite://{theirs}/history.db", "api": {"socket": f"{theirs}/s"}}
    running = daemon({}, **{setting: values[setting]})
    if setting != "state_dir":
        (running.config_path.parent / "state").mkdir(mode=0o700)  # by which the daemon's user is known
    command = [sys.executable, "-m", "schedulerd", "--check-config", "--config", running.config_path]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    running.spawn()

    assert (running.wait(), checked.returncode) == (78, 0 if setting == "state_dir" else 78)
    for text in (running.log(), checked.stderr):
        assert re.search(rf"{setting}\S*: its folder \S+ \(owner nobody, mode 0700\).*: use a path", text)
    assert ("the user of the daemon is not known" in checked.stderr) == (setting == "state_dir")
    assert os.listdir(theirs) == []


def test_p52_a_calendar_that_is_a_link_of_a_strangers_shows_nothing_of_roots(theirs, victim):
    link_of_a_stranger(theirs / "holidays.ics", victim)
    (theirs / "own.ics").write_text("own")

    with pytest.raises(ConfigError, match="a link that others can change") as error:
        Files().calendar(f"{theirs}/holidays.ics")
    assert "precious" not in str(error.value)
    assert Files().calendar(f"{theirs}/own.ics") == b"own"


def test_p52_a_copy_of_the_history_is_not_made_in_a_strangers_folder(tmp_path, theirs, capsys):
    history = tmp_path / "history.db"
    SqliteStore(str(history)).close()

    assert [main.main(["db", "backup", str(place / "copy"), f"sqlite://{history}"]) for place in (tmp_path, theirs)] == [
        0,
        1,
    ]
    assert "use a path that is not below" in capsys.readouterr().err
    assert (os.listdir(theirs), stat.S_IMODE((tmp_path / "copy").stat().st_mode)) == ([], 0o600)


def test_s39_a_check_of_the_configuration_warns_of_a_folder_that_is_refused(theirs):
    jobs = [a_job("roots"), a_job("theirs", user="nobody")]

    warnings = list(backup_warnings({str(theirs): jobs, f"{theirs}/new": jobs}))
    assert len(warnings) == 1
    used = rf"^warning: roots: {theirs} cannot be used for backups: its .*: use a path .* \S+/home; or"
    assert re.search(used, warnings[0])
