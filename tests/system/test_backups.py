"""Backups of real servers and files, restored by the plain tools."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
import redis

from schedulerd.backups.create import SOURCE_TYPES
from schedulerd.cli.client import PREFIX
from tests.support.servers import RedisServer, find
from tests.support.shims import shim
from tests.support.waiting import until

KILLS = int(os.environ.get("SCHEDULERD_TEST_BACKUP_KILLS", "8"))
ROOT = Path(__file__).parents[2]
POINTS = ("backup_copied", "backup_checked", "backup_named", "backup_removed")


def run(running, job="b", expected="success"):
    body = running.client.post(f"jobs/{job}/trigger").body
    assert body["status"] == expected, body
    return body


def details(body):
    return body["result"]["details"]


def post(running, filename, verb, **body):
    return running.client.ask("POST", f"{PREFIX}/backups/{filename}/{verb}", body or None)


def backups_of(running, **query):
    return running.client.get("backups", **query)


def folder_of(running):
    return running.folder / "state" / "backups"


def visible(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def with_manifests(backups):
    return sorted(name for one in backups for name in (one["filename"], one["filename"] + ".json"))


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE notes (x)")
        connection.executemany("INSERT INTO notes VALUES (?)", [(n,) for n in range(5000)])
        connection.commit()
    return path


@pytest.fixture
def noted(daemon, notes):
    """Make a daemon that backs up `notes`, with more settings of the backup."""

    def make(env=None, jobs=None, **settings):
        job = {"backup": {"source": "notes", **settings}, **({"env": env} if env else {})}
        return daemon({"b": job, **(jobs or {})}, sources={"notes": f"sqlite://{notes}"}).start()

    return make


# SQLite, and what holds for all


def test_a_backup_is_whole_private_and_in_the_catalogue(noted, notes):
    running = noted(keep={"last": 2})
    with closing(sqlite3.connect(notes)) as busy:
        busy.execute("BEGIN IMMEDIATE")  # a writer is at work while the backup is made
        busy.execute("DELETE FROM notes")
        for _ in range(3):
            run(running)
        busy.rollback()

    backups = backups_of(running)
    path = Path(backups[0]["path"])
    assert len(backups) == 2
    assert hashlib.sha256(path.read_bytes()).hexdigest() == backups[0]["sha256"]
    assert visible(path.parent) == with_manifests(backups)
    told = subprocess.run(["sqlite3", path, "SELECT count(*) FROM notes"], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "5000"


@pytest.mark.parametrize("umask", [0o022, 0])
def test_files_are_0600_and_folders_0700_whatever_the_umask(noted, umask):
    before = os.umask(umask)
    try:
        running = noted()
        run(running)
    finally:
        os.umask(before)
    folder = folder_of(running)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert {name.stat().st_mode & 0o777 for name in folder.iterdir()} == {0o600}


def test_a_folder_that_is_a_link_is_refused(noted, tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    running = noted(directory=str(tmp_path / "link"))

    assert "is a symbolic link" in run(running, expected="failed")["message"]
    assert visible(tmp_path / "real") == []


def test_a_folder_that_others_can_write_is_refused(noted, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    running = noted(directory=str(tmp_path / "open"))

    assert f"chmod go-w {tmp_path}/open" in run(running, expected="failed")["message"]


@pytest.mark.parametrize("content", [b"no database " * 1000, None])
def test_a_backup_that_cannot_be_made_fails_and_leaves_nothing(noted, notes, content):
    for name in notes.parent.glob("notes.db*"):
        name.unlink()
    if content:
        notes.write_bytes(content)
    running = noted()

    assert "could not be backed up" in run(running, expected="failed")["message"]
    assert visible(folder_of(running)) == []
    assert backups_of(running) == []


def test_a_damaged_source_makes_no_backup(daemon, tmp_path):
    source = tmp_path / "x.db"
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [("y" * 500,) for _ in range(500)])
        connection.commit()
    data = bytearray(source.read_bytes())
    data[4096 * 5 : 4096 * 6] = b"\xff" * 4096
    source.write_bytes(data)
    running = daemon({"b": {"backup": {"source": "x"}}}, sources={"x": f"sqlite://{source}"}).start()

    assert "damaged" in run(running, expected="failed")["message"]
    assert visible(folder_of(running)) == []


def test_a_locked_database_is_left_when_the_run_is_ended_and_nothing_stays(daemon, tmp_path):
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE x (y)")
        holder.execute("BEGIN EXCLUSIVE")
        job = {"timeout": "3s", "kill_grace": "60s", "backup": {"source": "x"}}
        running = daemon({"b": job}, sources={"x": f"sqlite://{path}"}).start()
        run(running, expected="timed_out")

    assert visible(folder_of(running)) == []


def test_a_database_whose_writer_was_killed_is_told_with_the_way_out(daemon, tmp_path):
    path = tmp_path / "x.db"
    program = (
        "import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('CREATE TABLE t (x)'); c.execute('PRAGMA cache_size=1'); c.execute('BEGIN');"
        "c.executemany('INSERT INTO t VALUES (?)', [('x' * 5000,)] * 500); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, path], check=False)
    running = daemon({"b": {"backup": {"source": "x"}}}, sources={"x": f"sqlite://{path}"}).start()
    assert "left a journal" in run(running, expected="failed")["message"]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT 1 FROM sqlite_master")
    run(running)


def test_a_drill_that_is_cancelled_in_an_assertion_says_nothing_and_leaves_nothing(noted):
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    job = {"kill_grace": "60s", "restore_drill": {"of": "b", "assertions": [endless]}}
    running = noted(jobs={"d": job})
    run(running)
    run_id = running.client.post("jobs/d/trigger", wait="false").body["run_id"]
    until(lambda: list(folder_of(running).glob(".d-*/restored.db")), "the restore")
    running.client.post(f"runs/{run_id}/cancel")
    until(lambda: running.client.get(f"runs/{run_id}")["status"] == "cancelled", "its end")
    (backup,) = backups_of(running)

    assert (backup["is_good"], backup["drill"]) == (True, None)
    assert visible(folder_of(running)) == with_manifests([backup])


def test_the_history_itself_can_be_backed_up(daemon):
    running = daemon({"b": {"backup": {"source": "history"}}}).start()
    run(running)
    (backup,) = backups_of(running)

    with closing(sqlite3.connect(backup["path"])) as copy:
        assert copy.execute("SELECT job_id FROM runs").fetchall() == [("b",)]


def test_the_first_five_fields_are_those_of_the_contract(noted):
    running = noted()
    run(running)
    (backup,) = backups_of(running)

    assert list(backup)[:5] == ["filename", "path", "size_bytes", "size_mb", "created_at"]
    assert running.client.get(f"backups/{backup['filename']}") == backup
    assert backups_of(running, job="b", source="notes", limit=1) == [backup]
    assert backups_of(running, job="c") == []


def test_foreign_files_links_and_names_that_lead_out_are_neither_listed_nor_deleted(noted, tmp_path):
    running = noted(keep={"last": 1})
    run(running)
    folder = folder_of(running)
    (backup,) = backups_of(running)
    manifest = json.loads((folder / (backup["filename"] + ".json")).read_text())
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")

    def forge(name, filename, make):
        (folder / f"{name}.json").write_text(json.dumps({**manifest, "filename": filename, "size_bytes": 4}))
        make()

    forge("link", "link", lambda: (folder / "link").symlink_to(secret))
    forge("hard", "hard", lambda: (folder / "hard").hardlink_to(secret))
    forge("fifo", "fifo", lambda: os.mkfifo(folder / "fifo"))
    forge("out", "../../secret", lambda: None)
    forge("other", backup["filename"], lambda: None)
    (folder / "foreign.db").write_bytes(b"foreign")
    (folder / "big.json").write_bytes(b"x" * 100_000)
    before = set(visible(folder))
    for _ in range(2):
        run(running)

    assert len(backups_of(running)) == 2  # `hard` in doubt, see below
    assert before - set(visible(folder)) == {backup["filename"], backup["filename"] + ".json"}
    assert secret.read_bytes() == b"mine"
    for name in ("link", "fifo", "foreign.db", "..%2F..%2Fsecret", "%2e%2e"):
        assert post(running, name, "verify").status == 404
    assert "has 2 names" in post(running, "hard", "verify").body["detail"]
    (hard,) = (one for one in backups_of(running) if one["filename"] == "hard")
    assert not hard["is_good"]


@pytest.mark.parametrize("spoil", [os.link, lambda path, _other: shutil.chown(path, 65534)])
def test_a_backup_whose_file_is_no_more_ours_is_told_and_neither_counted_nor_deleted(noted, tmp_path, spoil):
    if os.geteuid() and spoil.__code__.co_varnames[1] == "_other":
        pytest.skip("only root can give files away")
    running = noted(keep={"last": 1}, max_age="1h", jobs={"health": {"health_check": {}}})
    spoilt = details(run(running))["filename"]
    spoil(folder_of(running) / spoilt, tmp_path / "other")
    only = details(run(running, "health"))["services"]["backups"]
    (told,) = backups_of(running)
    made = [details(run(running))["filename"] for _ in range(2)]
    after = details(run(running, "health"))["services"]["backups"]

    assert (told["is_good"], only["jobs"]["b"]["count"], only["jobs"]["b"]["last_good_at"]) == (False, 1, None)
    assert told["doubts"][0] in only["error"]
    assert [one["filename"] for one in backups_of(running)] == [made[1], spoilt]
    assert (after["status"], after["error"]) == ("degraded", f"b: {spoilt}: {told['doubts'][0]}")


def test_a_flipped_bit_is_found_and_the_backup_counts_as_good_no_more(noted):
    running = noted(keep={"last": 1})
    first = details(run(running))["filename"]
    assert post(running, first, "verify").body["is_good"]
    _flip(folder_of(running) / first)
    found = post(running, first, "verify").body

    assert not found["is_good"]
    assert "damaged" in found["doubts"][0]
    second = details(run(running))["filename"]
    assert [one["filename"] for one in backups_of(running)] == [second]  # the damaged one went for a good one


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def test_a_backup_that_was_cut_is_in_doubt_without_being_read(noted):
    running = noted()
    name = details(run(running))["filename"]
    os.truncate(folder_of(running) / name, 100)
    (backup,) = backups_of(running)

    assert not backup["is_good"]
    assert "100 bytes" in backup["doubts"][0]


def test_the_last_good_one_stays_when_all_later_ones_are_odd(noted, notes):
    running = noted(keep={"last": 1}, max_shrink=50)
    good = details(run(running))["filename"]
    with closing(sqlite3.connect(notes, isolation_level=None)) as connection:
        connection.execute("DELETE FROM notes")
        connection.execute("VACUUM")
    for _ in range(4):
        assert "shrank by more than 50 %" in run(running, expected="failed")["message"]
    backups = backups_of(running)

    assert [one["is_good"] for one in backups if one["filename"] == good] == [True]
    accepted = post(running, backups[0]["filename"], "accept", reason="the notes were archived").body
    assert accepted["is_good"]
    run(running)
    assert good not in [one["filename"] for one in backups_of(running)]


def test_what_another_daemon_has_made_in_a_shared_folder_is_seen_and_neither_counted_nor_let_go(daemon, notes, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o700)
    backup = {"source": "notes", "directory": str(shared), "keep": {"last": 2}, "max_age": "1h"}
    jobs = {"b": {"backup": backup}, "d": {"restore_drill": {"of": "b"}}, "health": {"health_check": {}}}
    one, other = (daemon(jobs, sources={"notes": f"sqlite://{notes}"}).start() for _ in range(2))
    first = [details(run(one))["filename"] for _ in range(2)]
    missed = details(run(other, "health"))["services"]["backups"]["error"]
    untried = run(other, "d", "failed")["message"]
    second = [details(run(other))["filename"] for _ in range(3)]

    assert "there is no good backup" in missed
    assert "there is no backup of the job b" in untried
    for each in (one, other):
        assert [seen["filename"] for seen in backups_of(each)] == [*second[:0:-1], *first[::-1]]
        assert details(run(each, "health"))["services"]["backups"]["jobs"]["b"]["count"] == 2
    assert post(other, first[0], "hold").status == 200


def test_one_that_is_smaller_than_it_should_be_fails_its_run(noted):
    running = noted(min_size="1G")

    assert "min_size" in run(running, expected="failed")["message"]
    assert [one["is_good"] for one in backups_of(running)] == [False]


def test_a_backup_that_was_deleted_by_hand_is_missing_until_it_is_forgotten_or_the_next_good_one(noted):
    running = noted(keep={"last": 3}, jobs={"health": {"health_check": {}}})
    names = [details(run(running))["filename"] for _ in range(3)]
    for name in names[:2]:
        os.unlink(folder_of(running) / name)
    seen = details(run(running, "health"))["services"]["backups"]
    present = post(running, names[2], "forget")
    forgotten = post(running, names[0], "forget")

    assert (seen["status"], seen["jobs"]["b"]["count"], seen["jobs"]["b"]["missing"]) == ("degraded", 1, 2)
    assert "the file is missing" in seen["error"]
    assert (present.status, forgotten.status) == (409, 200)
    assert [one["filename"] for one in backups_of(running)] == names[2:]
    listed = [(one["filename"], one["is_missing"]) for one in backups_of(running, missing="true")]
    assert listed == [(names[2], False), (names[1], True)]
    assert post(running, names[1], "verify").status == 404
    run(running)
    assert visible(folder_of(running)) == with_manifests(backups_of(running))
    assert len(backups_of(running)) == 2
    assert details(run(running, "health"))["services"]["backups"]["status"] == "healthy"


def test_a_backup_that_is_damaged_cannot_be_accepted(noted):
    running = noted(min_size="1G")
    run(running, expected="failed")
    (backup,) = backups_of(running)
    _flip(Path(backup["path"]))
    post(running, backup["filename"], "verify")
    refused = post(running, backup["filename"], "accept")

    assert (refused.status, backups_of(running)[0]["accepted"]) == (409, None)
    assert "damaged" in refused.body["detail"]
    assert "schedulerctl run b" in refused.body["detail"]


def test_a_hold_keeps_a_backup_until_it_is_released(noted):
    running = noted(keep={"last": 1})
    held = details(run(running))["filename"]
    assert post(running, held, "hold", reason="for the audit").body["hold"]["reason"] == "for the audit"
    run(running)
    assert held in [one["filename"] for one in backups_of(running)]
    assert post(running, held, "release").body["hold"] is None
    run(running)

    assert held not in [one["filename"] for one in backups_of(running)]


def test_no_backup_is_begun_without_room(noted):
    running = noted(min_free="900000G")

    assert "must remain free" in run(running, expected="failed")["message"]
    assert visible(folder_of(running)) == []


def test_backups_are_made_and_let_go_where_a_folder_cannot_be_locked_as_on_nfs(daemon, notes):
    env = {"LD_PRELOAD": str(shim("nfslocks"))}
    jobs = {"b": {"backup": {"source": "notes", "keep": {"last": 2}}, "env": env}}
    running = daemon(jobs, env=env, sources={"notes": f"sqlite://{notes}"}).start()
    names = [details(run(running))["filename"] for _ in range(3)]

    assert [each["filename"] for each in backups_of(running)] == names[:0:-1]
    assert [name for name in os.listdir(folder_of(running)) if "partial" in name] == []


@pytest.mark.root("needs root, to mount a file system")
@pytest.mark.parametrize("is_damaged", [True, False])
def test_a_verdict_that_cannot_be_written_is_told(noted, is_damaged):
    running = noted()
    name = details(run(running))["filename"]
    folder = str(folder_of(running))
    if is_damaged:
        _flip(folder_of(running) / name)
    script = (
        "import sys; from datetime import datetime, timezone; from schedulerd.backups.catalogue import Catalogue\n"
        "from schedulerd.backups.verify import verify\n"
        "verify(Catalogue(sys.argv[1]), sys.argv[2], datetime.now(timezone.utc))"
    )
    mount = 'mount --bind "$2" "$2" && mount -o remount,ro,bind "$2" && exec "$0" -c "$1" "$2" "$3"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, sys.executable, script, folder, name],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip

    verdict = "the file is damaged" if is_damaged else "the file is unchanged"
    assert f"BackupError: {name}: {verdict}" in done.stderr
    assert done.stderr.strip().endswith("but its manifest cannot be written: Read-only file system")


def test_no_drill_is_begun_without_room_and_that_says_nothing_about_the_backup(noted, notes):
    drill = {"d": {"restore_drill": {"of": "b"}}}
    running = noted(jobs=drill)
    run(running)
    backup = {"source": "notes", "min_free": "900000G"}
    running.reload({"jobs": {"b": {"backup": backup}, **drill}, "sources": {"notes": f"sqlite://{notes}"}})

    assert "must remain free" in run(running, "d", "failed")["message"]
    assert backups_of(running)[0]["is_good"]


def test_a_source_says_how_large_its_first_backup_will_be(postgres, shop, redis_server, tmp_path):
    order = {"url": shop, "schema": None, "pg_bin": None}
    with psycopg.connect(shop, autocommit=True) as connection:
        sizes = [connection.execute("SELECT pg_database_size('shop'), pg_table_size('orders')").fetchone()]
        size = SOURCE_TYPES["postgresql"].size
        whole, schema = size(order), size({**order, "schema": "public"})
        sizes.append(connection.execute("SELECT pg_database_size('shop'), pg_table_size('orders')").fetchone())
    assert sizes[0][0] <= whole <= sizes[1][0]  # the server tidies up while it is asked
    assert sizes[0][1] <= schema <= sizes[1][1]
    assert SOURCE_TYPES["redis"].size({"url": redis_server.url}) > 100_000
    data = tmp_path / "data"
    (data / "backups").mkdir(parents=True)
    (data / "cache").mkdir()
    for name in ("backups/old", "cache/junk", "file"):
        (data / name).write_bytes(bytes(100_001))
    (data / "again").hardlink_to(data / "file")
    (data / "link").symlink_to("/usr")
    with open(data / "holes", "wb") as holes:
        holes.truncate(10**9)
    order = {"folder": str(data), "directory": str(data / "backups"), "exclude": ["./cache"]}
    assert 100_001 < SOURCE_TYPES["folder"].size(order) < 110_000


@pytest.mark.root("needs root, to mount a small file system")
@pytest.mark.parametrize("compress", ["none", "gzip"])
def test_a_full_disk_fails_the_backup_and_leaves_nothing(tmp_path, notes, compress):
    small = tmp_path / "small"
    small.mkdir()
    order = {
        "directory": str(small), "keep": {}, "min_size": 1, "max_shrink": 100, "min_free": 0, "pg_bin": None, "folder": None,
        "job_id": "b", "run_id": "00000000-0000-7000-8000-000000000000", "node": "n", "daemon": "d",
        "timezone": "UTC", "kind": "sqlite",
        "source": "notes", "url": f"sqlite://{notes}", "exclude": [], "compress": compress, "encrypt": "none",
        "recipients": [], "schema": None,
    }  # fmt: skip
    kilobytes = 32 if compress == "none" else notes.stat().st_size // 1024 + 8
    child = f"{sys.executable} -m schedulerd.actions.programs.backup"
    mount = f"mount -t tmpfs -o size={kilobytes}k,mode=700 none {small} && touch {small}/full"
    script = f"{mount}; {child}; s=$?; ls -A {small}; exit $s"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], input=json.dumps(order), capture_output=True, text=True, cwd=ROOT, check=False
    )

    assert done.returncode == 1, done
    assert re.search("full|No space|bytes free", done.stderr), done
    assert done.stdout == "full\n"


# Killed and cancelled


def test_a_kill_at_any_moment_leaves_no_half_file_listed_and_none_after_the_next_run(noted, notes):
    with closing(sqlite3.connect(notes)) as connection:
        connection.executemany("INSERT INTO notes VALUES (?)", [("z" * 1000,) for _ in range(20_000)])
        connection.commit()
    running = noted(keep={"last": 2})
    good = details(run(running))["filename"]
    post(running, good, "hold")
    for _ in range(KILLS):
        run_id = running.client.post("jobs/b/trigger", wait="false").body["run_id"]
        pid = until(lambda run_id=run_id: _child_of(run_id), "the child")
        threading.Event().wait(random.random() * 0.4)
        if pid:
            _kill(pid)
        until(lambda run_id=run_id: running.client.get(f"runs/{run_id}")["status"] not in ("queued", "running"), "its end")
        listed = backups_of(running)
        assert good in [one["filename"] for one in listed]
        assert all(_is_whole(one) for one in listed)
    for _ in range(2):  # where much else is going on, none of those before may have come to its end
        run(running)

    assert visible(folder_of(running)) == with_manifests(backups_of(running))
    assert len(backups_of(running)) == 3


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_each_point_is_mended_when_the_run_has_ended(noted, notes, point):
    running = noted(keep={"last": 1}, env={"SCHEDULERD_FAULT": f"{point}:kill:1"}, jobs={"c": {"shell": "true"}})
    folder = folder_of(running)
    job = {"b": {"backup": {"source": "notes", "keep": {"last": 1}}}}
    if point == "backup_removed":  # that takes an earlier one
        running.reload({"jobs": job, "sources": {"notes": f"sqlite://{notes}"}})
        run(running)
        fault = {"b": {**job["b"], "env": {"SCHEDULERD_FAULT": f"{point}:kill:1"}}}
        running.reload({"jobs": fault, "sources": {"notes": f"sqlite://{notes}"}})
    run(running, expected="failed")
    until(lambda: visible(folder) == with_manifests(backups_of(running)), "the folder to be cleared up")
    assert all(_is_whole(one) for one in backups_of(running))
    running.reload({"jobs": job, "sources": {"notes": f"sqlite://{notes}"}})
    run(running)

    assert visible(folder) == with_manifests(backups_of(running))
    assert len(backups_of(running)) == 1


def test_what_another_daemon_works_on_is_left_alone(noted):
    running = noted()
    folder = folder_of(running)
    folder.mkdir(mode=0o700)
    other = folder / ".b-c-00000000-0000-7000-8000-000000000000.0123456789abcdef.partial"
    other.mkdir()
    (other / "content").write_bytes(b"half")
    run(running)

    assert (other / "content").exists()


@pytest.mark.parametrize(("point", "sign"), [("backup_copied", "content"), ("backup_named", "*.json")])
def test_a_cancelled_backup_leaves_nothing(noted, point, sign):
    running = noted(env={"SCHEDULERD_FAULT": f"{point}:sleep:60:1"})
    run_id = running.client.post("jobs/b/trigger", wait="false").body["run_id"]
    until(lambda: list(folder_of(running).rglob(sign)), "its work")
    assert running.client.post(f"runs/{run_id}/cancel", wait="30s").body["status"] == "cancelled"

    assert visible(folder_of(running)) == []


def test_what_was_killed_together_with_the_daemon_is_cleared_up_at_its_start_though_the_job_is_gone(noted):
    running = noted(env={"SCHEDULERD_FAULT": "backup_copied:sleep:60:1"})
    run_id = running.client.post("jobs/b/trigger", wait="false").body["run_id"]
    until(lambda: list(folder_of(running).rglob("content")), "its work")
    running.kill()
    _kill(until(lambda: _child_of(run_id), "the child"))
    running.write({"jobs": {}})
    running.start()

    until(lambda: visible(folder_of(running)) == [], "the folder to be cleared up")


def test_a_backup_outlives_the_daemon(noted):
    running = noted(env={"SCHEDULERD_FAULT": "backup_copied:sleep:2:1"})
    run_id = running.client.post("jobs/b/trigger", wait="false").body["run_id"]
    until(lambda: _child_of(run_id), "the child")
    running.kill()
    running.start()
    until(lambda: running.client.get(f"runs/{run_id}")["status"] == "success", "its end")

    assert [one["run_id"] for one in backups_of(running)] == [run_id]


def _child_of(run_id: str) -> int | None:
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"SCHEDULERD_RUN_ID={run_id}".encode() in Path(f"/proc/{name}/environ").read_bytes():
                return int(name)
        except OSError:
            continue
    return None


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_whole(backup) -> bool:
    data = Path(backup["path"]).read_bytes()
    return hashlib.sha256(data).hexdigest() == backup["sha256"] and len(data) == backup["size_bytes"]


# PostgreSQL


@pytest.fixture
def shop(postgres):
    """A database with 20,000 orders, on the session's server."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
        connection.execute("CREATE DATABASE shop")
        connection.execute("DROP DATABASE IF EXISTS again WITH (FORCE)")
        connection.execute("DROP ROLE IF EXISTS keeper")
        connection.execute("CREATE ROLE keeper LOGIN SUPERUSER PASSWORD 's3cret-pass'")
    url = postgres.url.replace("postgres@/postgres", "keeper:s3cret-pass@/shop")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders AS SELECT n, md5(n::text) AS word FROM generate_series(1, 20000) AS n")
    return url


def counted(url: str) -> int:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT count(*) FROM orders").fetchone()[0]


def test_a_dump_that_was_taken_while_a_writer_was_busy_is_restored_by_pg_restore(daemon, postgres, shop):
    running = daemon({"b": {"backup": {"source": "shop"}}}, sources={"shop": shop}).start()
    stop = threading.Event()

    def write():
        with psycopg.connect(shop, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("BEGIN; DELETE FROM orders WHERE n = 1; INSERT INTO orders VALUES (1, 'again'); COMMIT")

    writer = threading.Thread(target=write)
    writer.start()
    run(running)
    stop.set()
    writer.join()
    (backup,) = backups_of(running)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE again")
    there = postgres.url.replace("/postgres?", "/again?")
    subprocess.run(["pg_restore", "--exit-on-error", "--dbname", there, backup["path"]], check=True)

    assert backup["kind"] == "postgresql"
    assert counted(there) == 20_000


def test_a_pg_dump_that_waits_for_a_lock_is_ended_by_the_timeout_with_nothing_left(daemon, shop):
    running = daemon({"b": {"timeout": "2s", "backup": {"source": "shop"}}}, sources={"shop": shop}).start()
    with psycopg.connect(shop) as connection:
        connection.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        body = run(running, expected="timed_out")

    assert "timeout" in body["message"]
    assert visible(folder_of(running)) == []
    assert _child_of(body["run_id"]) is None


@pytest.mark.parametrize("password", ["s3cret-pass", "s3cret#p?ass["])
def test_no_password_is_in_an_argument_an_output_or_a_manifest(daemon, shop, password):
    sources = {"shop": shop.replace("s3cret-pass", password)}
    running = daemon({"b": {"backup": {"source": "shop"}}}, sources=sources).start()
    seen, stop = set(), threading.Event()

    def watch():
        while not stop.is_set():
            for name in filter(str.isdigit, os.listdir("/proc")):
                try:
                    seen.add(Path(f"/proc/{name}/cmdline").read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    body = run(running)
    stop.set()
    watcher.join()
    text = running.log() + json.dumps(body) + "".join(path.read_text() for path in folder_of(running).glob("*.json"))

    assert any(b"pg_dump" in each for each in seen)
    assert not [each for each in seen if b"s3cret" in each]
    assert "s3cret" not in text


def test_a_wrong_password_fails_the_backup_and_is_not_told(daemon, postgres, shop):
    url = postgres.locked("wr0ng-pass", "shop")
    running = daemon({"b": {"backup": {"source": "shop"}}}, sources={"shop": url}).start()
    body = run(running, expected="failed")

    assert "password authentication failed" in body["message"]
    assert "wr0ng-pass" not in json.dumps(body) + running.log()
    assert visible(folder_of(running)) == []


def test_a_pg_dump_that_refuses_the_server_fails_the_backup(daemon, tmp_path, shop):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pg_dump").write_text(
        "#!/bin/sh\necho 'pg_dump: error: aborting because of server version mismatch' >&2\nexit 1\n"
    )
    (programs / "pg_dump").chmod(0o755)
    job = {"backup": {"source": "shop", "pg_bin": str(programs)}}
    running = daemon({"b": job}, sources={"shop": shop}).start()

    assert "server version mismatch" in run(running, expected="failed")["message"]
    assert backups_of(running) == []


def test_globals_are_kept_as_sql(daemon, shop):
    running = daemon({"b": {"backup": {"source": "shop", "content": "globals"}}}, sources={"shop": shop}).start()
    run(running)
    (backup,) = backups_of(running)

    assert "CREATE ROLE keeper" in Path(backup["path"]).read_text()


def test_a_history_in_postgresql_is_backed_up_alone_and_proven(daemon, postgres, shop):
    jobs = {
        "b": {"backup": {"source": "history"}},
        "d": {
            "restore_drill": {
                "of": "b",
                "into": postgres.url,
                "assertions": ["SELECT count(*) > 0 FROM schedulerd.runs"],
            }
        },
    }
    running = daemon(jobs, store=shop).start()
    run(running)
    run(running, "d")
    (backup,) = backups_of(running)
    listed = subprocess.run(["pg_restore", "--list", backup["path"]], capture_output=True, text=True, check=True).stdout

    assert backup["is_proven"]
    assert "runs" in listed
    assert "orders" not in listed


def test_a_drill_restores_the_newest_backup_and_leaves_its_proof(daemon, postgres, shop):
    assertions = ["SELECT count(*) = 20000 FROM orders", "SELECT bool_and(word = md5(n::text)) FROM orders"]
    jobs = {
        "b": {"backup": {"source": "shop"}},
        "d": {"restore_drill": {"of": "b", "into": "scratch", "assertions": assertions}},
    }
    running = daemon(jobs, sources={"shop": shop, "scratch": postgres.url}).start()
    run(running)
    body = run(running, "d")
    (backup,) = backups_of(running)

    assert "2 assertions hold" in details(body)["message"]
    assert backup["is_proven"]
    assert (backup["drill"]["assertions"], backup["drill"]["job_id"]) == (2, "d")
    assert _scratch_databases(postgres) == []


def test_a_drill_whose_assertion_does_not_hold_refutes_the_backup(daemon, postgres, shop):
    jobs = {
        "b": {"backup": {"source": "shop"}},
        "d": {"restore_drill": {"of": "b", "into": postgres.url, "assertions": ["SELECT count(*) > 30000 FROM orders"]}},
    }
    running = daemon(jobs, sources={"shop": shop}).start()
    run(running)
    assert "does not hold" in run(running, "d", "failed")["message"]
    (backup,) = backups_of(running)

    assert not backup["is_good"]
    assert not backup["is_proven"]
    assert _scratch_databases(postgres) == []
    assert "schedulerctl backups drill b" in post(running, backup["filename"], "accept").body["detail"]


def test_a_drill_whose_error_quotes_a_whole_value_leaves_the_backup_in_the_catalogue(daemon, postgres, shop):
    assertion = "SELECT repeat('x', 200000)::int"
    jobs = {
        "b": {"backup": {"source": "shop"}},
        "d": {"restore_drill": {"of": "b", "into": postgres.url, "assertions": [assertion]}},
    }
    running = daemon(jobs, sources={"shop": shop}).start()
    run(running)
    body = run(running, "d", "failed")
    (backup,) = backups_of(running)

    assert "invalid input syntax" in body["message"]
    assert (backup["is_good"], "xxx" in backup["doubts"][0]) == (False, False)


def test_a_drill_without_its_server_says_nothing_about_the_backup(daemon, tmp_path, shop):
    jobs = {
        "b": {"backup": {"source": "shop"}},
        "d": {"restore_drill": {"of": "b", "into": f"postgresql://x:wr0ng@/y?host={tmp_path}"}},
    }
    running = daemon(jobs, sources={"shop": shop}).start()
    run(running)
    body = run(running, "d", "failed")
    (backup,) = backups_of(running)

    assert "scratch database" in body["message"]
    assert "wr0ng" not in json.dumps(body)
    assert (backup["is_good"], backup["is_proven"], backup["drill"]["ok"]) == (True, False, False)


@pytest.mark.parametrize(("count", "is_good"), [(30000, False), (20000, True)])
def test_a_drill_without_its_server_leaves_an_earlier_verdict(daemon, tmp_path, postgres, shop, count, is_good):
    away = f"postgresql://x@/y?host={tmp_path}"
    assertions = [f"SELECT count(*) = {count} FROM orders"]
    jobs = {
        "b": {"backup": {"source": "shop"}},
        "d": {"restore_drill": {"of": "b", "into": postgres.url, "assertions": assertions}},
        "away": {"restore_drill": {"of": "b", "into": away, "assertions": assertions}},
    }
    running = daemon(jobs, sources={"shop": shop}).start()
    run(running)
    told = run(running, "d", "success" if is_good else "failed")["message"]
    (before,) = backups_of(running)
    run(running, "away", "failed")
    (after,) = backups_of(running)

    assert ("1 assertion holds" in told) == is_good
    assert (after["is_good"], after["is_proven"], after["doubts"]) == (is_good, is_good, before["doubts"])
    assert "scratch database" in after["drill"]["untried"]["error"]


def test_what_a_killed_drill_left_on_the_server_is_dropped_by_the_next(daemon, postgres, shop):
    jobs = {
        "b": {"backup": {"source": "shop"}},
        "d": {"restore_drill": {"of": "b", "into": postgres.url, "assertions": ["SELECT pg_sleep(60) IS NULL"]}},
    }
    running = daemon(jobs, sources={"shop": shop}).start()
    run(running)
    run_id = running.client.post("jobs/d/trigger", wait="false").body["run_id"]
    until(lambda: _scratch_databases(postgres), "the scratch database")
    _kill(_child_of(run_id) or 0)
    until(lambda: running.client.get(f"runs/{run_id}")["status"] == "failed", "its end")
    assert len(_scratch_databases(postgres)) == 1
    jobs["d"]["restore_drill"]["assertions"] = []
    running.reload({"jobs": jobs, "sources": {"shop": shop}})
    run(running, "d")

    assert _scratch_databases(postgres) == []
    assert visible(folder_of(running)) == with_manifests(backups_of(running))


def test_a_drill_leaves_out_what_its_server_lacks_or_could_not_drop(daemon, postgres, shop):
    place = Path(tempfile.mkdtemp(dir=postgres.folder))
    if os.geteuid() == 0:
        shutil.chown(place, "nobody", "nogroup")
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE aside LOCATION '{place}'")
        connection.execute("CREATE TABLE far (x int) TABLESPACE aside")
        connection.execute("CREATE SUBSCRIPTION s CONNECTION 'dbname=none' PUBLICATION p WITH (connect=false)")
    jobs = {
        "b": {"backup": {"source": "shop"}},
        "d": {"restore_drill": {"of": "b", "into": postgres.url, "assertions": ["SELECT count(*) = 0 FROM far"]}},
    }
    running = daemon(jobs, sources={"shop": shop}).start()
    run(running)
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
        connection.execute("DROP SUBSCRIPTION s")
        connection.execute("DROP TABLE far")
        connection.execute("DROP TABLESPACE aside")
    run(running, "d")

    assert _scratch_databases(postgres) == []


def test_a_server_that_cuts_off_who_is_idle_does_not_keep_the_scratch_database(daemon, postgres, shop):
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("ALTER ROLE keeper SET idle_session_timeout = 100")
    drill = {"of": "b", "into": shop.replace("/shop?", "/postgres?"), "assertions": ["SELECT pg_sleep(0.5) IS NOT NULL"]}
    jobs = {"b": {"backup": {"source": "shop"}}, "d": {"restore_drill": drill}}
    running = daemon(jobs, sources={"shop": shop}).start()
    run(running)
    run(running, "d")

    assert _scratch_databases(postgres) == []


def test_another_daemon_does_not_drop_the_scratch_database_of_a_drill_that_runs(daemon, postgres, shop):
    def started(assertion):
        drill = {"of": "b", "into": postgres.url, "assertions": [assertion]}
        return daemon({"b": {"backup": {"source": "shop"}}, "d": {"restore_drill": drill}}, sources={"shop": shop}).start()

    one, other = started("SELECT pg_sleep(600) IS NULL"), started("SELECT true")
    run(one)
    run(other)
    run_id = one.client.post("jobs/d/trigger", wait="false").body["run_id"]
    until(lambda: _scratch_databases(postgres), "the scratch database")
    before = _scratch_databases(postgres)
    run(other, "d")
    assert _scratch_databases(postgres) == before
    one.client.post(f"runs/{run_id}/cancel")
    until(lambda: not _scratch_databases(postgres), "the end")


def _scratch_databases(postgres):
    with psycopg.connect(postgres.url) as connection:
        return connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'schedulerd%'").fetchall()


# Redis


def test_an_rdb_that_was_taken_over_the_wire_is_loaded_by_redis_server(daemon, redis_server, tmp_path):
    client = redis.Redis(unix_socket_path=str(redis_server.socket))
    client.mset({f"key:{n}": n for n in range(5000)})
    jobs = {
        "b": {"backup": {"source": "cache"}},
        "d": {"restore_drill": {"of": "b", "assertions": ["EXISTS key:4999", "DBSIZE"]}},
        "e": {"restore_drill": {"of": "b", "assertions": ["EXISTS key:5000"]}},
    }
    running = daemon(jobs, sources={"cache": redis_server.url}).start()
    run(running)
    run(running, "d")
    (backup,) = backups_of(running)
    (tmp_path / "again").mkdir()
    shutil.copy(backup["path"], tmp_path / "again" / "dump.rdb")
    again = RedisServer(tmp_path / "again")
    until(again.answers, "redis-server")
    restored = redis.Redis(unix_socket_path=str(again.socket))
    until(lambda: restored.info()["loading"] == 0, "the load")

    assert restored.dbsize() == 5000
    assert backup["is_proven"]
    client.close()
    restored.close()
    again.close()
    assert "EXISTS key:5000" in run(running, "e", "failed")["message"]


@pytest.mark.parametrize(
    ("assertion", "told", "is_good"),
    [
        ("GET list", "WRONGTYPE", False),
        ("NOSUCH", "unknown command", False),
        ("GET zero", '"0"', False),
        ("LRANGE none 0 -1", "(empty", False),
        ("GET error", None, True),
        ("GET 'list", "No closing quotation", True),
        (" ", "is empty", True),
    ],
)
def test_a_redis_holds_only_what_it_answers_with_a_value(daemon, redis_server, assertion, told, is_good):
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        client.lpush("list", "x")
        client.mset({"zero": "0", "error": "(error) ERR is a text"})
    jobs = {"b": {"backup": {"source": "cache"}}, "d": {"restore_drill": {"of": "b", "assertions": [assertion]}}}
    running = daemon(jobs, sources={"cache": redis_server.url}).start()
    run(running)
    body = run(running, "d", "failed" if told else "success")
    (backup,) = backups_of(running)

    assert told is None or told in body["message"]
    assert (backup["is_good"], backup["is_proven"]) == (is_good, told is None)


def test_a_redis_that_hangs_is_given_up_after_the_timeout(daemon, redis_server):
    running = daemon({"b": {"timeout": "5s", "backup": {"source": "cache"}}}, sources={"cache": redis_server.url}).start()
    redis_server.process.send_signal(signal.SIGSTOP)
    body = run(running, expected="timed_out")
    redis_server.process.send_signal(signal.SIGCONT)

    assert visible(folder_of(running)) == []
    assert _child_of(body["run_id"]) is None


def test_a_redis_with_a_password_is_reached_and_a_wrong_one_is_not_told(daemon, redis_server):
    client = redis.Redis(unix_socket_path=str(redis_server.socket))
    client.config_set("requirepass", "s3cret-pass")
    client.close()
    sources = {
        "right": f"unix://:s3cret-pass@{redis_server.socket}", "wrong": f"unix://:wr0ng-pass@{redis_server.socket}",
    }  # fmt: skip
    running = daemon({name: {"backup": {"source": name}} for name in sources}, sources=sources).start()
    run(running, "right")
    body = run(running, "wrong", "failed")

    assert "wr0ng-pass" not in json.dumps(body) + running.log()
    assert len(backups_of(running)) == 1


# Folders


def test_a_folder_comes_back_from_its_archive_and_its_own_backups_are_not_in_it(daemon, tmp_path):
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "deep" / "file").write_bytes(os.urandom(100_000))
    (data / "cache").mkdir()
    (data / "cache" / "junk").write_text("junk")
    (data / "link").symlink_to("deep/file")
    (data / "backups").mkdir(mode=0o700)
    settings = {"folder": str(data), "directory": str(data / "backups"), "exclude": ["./cache"], "compress": "gzip"}
    jobs = {
        "b": {"backup": settings},
        "d": {"restore_drill": {"of": "b", "assertions": ["deep/file", "link"]}},
        "e": {"restore_drill": {"of": "b", "assertions": ["cache/junk"]}},
    }
    running = daemon(jobs).start()
    run(running)
    run(running, "d")
    (backup,) = backups_of(running)
    again = tmp_path / "again"
    again.mkdir()
    subprocess.run(["tar", "--extract", "--gzip", "--file", backup["path"], "--directory", again], check=True)

    assert (again / "deep" / "file").read_bytes() == (data / "deep" / "file").read_bytes()
    assert sorted(os.listdir(again)) == ["deep", "link"]
    assert "cache/junk" in run(running, "e", "failed")["message"]


@pytest.mark.parametrize(
    ("assertion", "told", "is_good"),
    [
        ("now/config", None, True),
        ("deep/up/now/config", None, True),
        ("now/none", "does not contain", False),
        ("file/none", "does not contain", False),
        ("live/config", "leads out", True),
        ("above/config", "leads out", True),
        ("round/config", "leads out", True),
    ],
)
def test_what_a_link_leads_to_outside_of_the_archive_proves_nothing(daemon, tmp_path, assertion, told, is_good):
    data, live = tmp_path / "data", tmp_path / "live"
    for each in (data / "5", data / "deep", live):
        each.mkdir(parents=True)
        (each / "config").write_text("x")
    (data / "file").touch()
    links = {"now": "./5", "deep/up": "..", "live": str(live), "above": "../" * 20 + str(live)[1:], "round": "round"}
    for name, target in links.items():
        (data / name).symlink_to(target)
    jobs = {"b": {"backup": {"folder": str(data)}}, "d": {"restore_drill": {"of": "b", "assertions": [assertion]}}}
    running = daemon(jobs).start()
    run(running)
    body = run(running, "d", "failed" if told else "success")
    (backup,) = backups_of(running)

    assert told is None or told in body["message"]
    assert (backup["is_good"], backup["is_proven"]) == (is_good, told is None)


@pytest.mark.parametrize("name", ["bk[1]", "b*k?", "b\\k", "..k"])
def test_a_folder_of_backups_is_not_in_them_whatever_its_name(daemon, tmp_path, name):
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "deep" / "junk.tmp").touch()
    settings = {"folder": str(data), "directory": str(data / name), "exclude": ["*.tmp"]}
    running = daemon({"b": {"backup": settings}}).start()
    run(running)
    run(running)
    listed = subprocess.run(
        ["tar", "-tf", backups_of(running)[0]["path"]], capture_output=True, text=True, check=True
    ).stdout

    assert sorted(listed.split("\n")) == ["", "./", "./deep/"]


def test_a_folder_is_not_backed_up_into_itself(daemon, tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(data)
    running = daemon({"b": {"backup": {"folder": str(tmp_path / "link"), "directory": str(data)}}}).start()
    assert "into itself" in run(running, expected="failed")["message"]
    refused = daemon({"b": {"backup": {"folder": str(data), "directory": str(data)}}})
    refused.spawn()

    assert refused.wait() == 2
    assert "into itself" in refused.log()


# Compression and encryption


@pytest.mark.parametrize(("compress", "undo"), [("gzip", ["gzip", "-dc"]), ("zstd", ["zstd", "-dqc"])])
def test_a_compressed_backup_unpacks_to_the_database(noted, tmp_path, compress, undo):
    find(undo[0])
    running = noted(compress=compress)
    run(running)
    (backup,) = backups_of(running)
    plain = tmp_path / "plain.db"
    plain.write_bytes(subprocess.run([*undo, backup["path"]], capture_output=True, check=True).stdout)

    assert backup["size_bytes"] < backup["content_size_bytes"]
    with closing(sqlite3.connect(plain)) as copy:
        assert copy.execute("SELECT count(*) FROM notes").fetchone() == (5000,)


def test_a_backup_to_an_age_recipient_is_read_with_the_key_and_proven_by_a_drill(noted, tmp_path):
    find("age")
    key = tmp_path / "key"
    subprocess.run(["age-keygen", "-o", key], capture_output=True, check=True)
    recipient = subprocess.run(["age-keygen", "-y", key], capture_output=True, text=True, check=True).stdout.strip()
    drills = {
        "d": {"restore_drill": {"of": "b", "age_identity": str(key), "assertions": ["SELECT count(*) = 5000 FROM notes"]}},
        "e": {"restore_drill": {"of": "b"}},
    }
    running = noted(encrypt={"age": [recipient]}, compress="zstd", jobs=drills)
    run(running)
    (backup,) = backups_of(running)

    assert backup["filename"].endswith(".db.zst.age")
    assert b"SQLite format" not in Path(backup["path"]).read_bytes()
    assert "age_identity" in run(running, "e", "failed")["message"]
    run(running, "d")
    assert [one["is_proven"] for one in backups_of(running)] == [True]


def test_a_backup_to_a_gpg_key_is_read_with_the_key(noted, tmp_path):
    find("gpg")
    home = tmp_path / "g"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    identity = ["--passphrase", "", "--quick-generate-key", "backup@example.org", "default", "default", "never"]
    subprocess.run([*gpg, *identity], check=True, capture_output=True)
    public = tmp_path / "backup.pub"
    public.write_bytes(subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout)
    drill = {"d": {"restore_drill": {"of": "b", "gnupg_home": str(home)}}}
    running = noted(encrypt={"gpg": [str(public)]}, jobs=drill)
    run(running)
    run(running, "d")
    (backup,) = backups_of(running)
    plain = subprocess.run([*gpg, "--decrypt", backup["path"]], capture_output=True, check=True).stdout
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)

    assert hashlib.sha256(plain).hexdigest() == json.loads(Path(backup["path"] + ".json").read_text())["content_sha256"]
    assert backup["is_proven"]


def test_when_it_cannot_be_encrypted_there_is_no_backup_and_nothing_in_the_clear(noted, tmp_path):
    find("age")
    running = noted(encrypt={"age": [str(tmp_path / "no-such-file")]})

    assert "age failed" in run(running, expected="failed")["message"]
    assert visible(folder_of(running)) == []


def test_a_key_among_the_backups_is_refused(daemon, tmp_path):
    directory = tmp_path / "backups"
    jobs = {
        "b": {"backup": {"source": "history", "directory": str(directory), "encrypt": {"age": ["age1x"]}}},
        "d": {"restore_drill": {"of": "b", "age_identity": str(directory / "key")}},
    }
    running = daemon(jobs)
    running.spawn()

    assert running.wait() == 2
    assert "the key is in the folder of the backups" in running.log()


def _nobody_can_run_python() -> bool:
    return (
        os.geteuid() == 0
        and os.stat(sys.executable).st_mode & 0o001
        and all(folder.stat().st_mode & 0o001 for folder in Path(sys.executable).resolve().parents)
    )


@pytest.mark.skipif(not _nobody_can_run_python(), reason="needs root, and a Python that others can run")
def test_a_backup_as_another_user_belongs_to_that_user(daemon, tmp_path):
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    theirs, source = tmp_path / "theirs", tmp_path / "public"
    theirs.mkdir(mode=0o700)
    shutil.chown(theirs, "nobody", "nogroup")
    source.mkdir(mode=0o755)
    (source / "file").write_text("hello")
    running = daemon({"b": {"user": "nobody", "backup": {"folder": str(source), "directory": str(theirs)}}}).start()
    run(running)
    (backup,) = backups_of(running)
    assert post(running, backup["filename"], "hold").status == 200

    assert {path.owner() for path in theirs.iterdir()} == {"nobody"}
