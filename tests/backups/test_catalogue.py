"""The catalogue of a folder, and what it finds out about damage."""

import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from schedulerd.backups import sqlite
from schedulerd.backups.catalogue import Catalogue
from schedulerd.backups.manifest import BackupOwner, Manifest, filename_of, from_json, to_json
from schedulerd.backups.source import BackupError
from schedulerd.backups.urls import RedisTls, postgresql, redis, with_database
from schedulerd.backups.verify import verify
from schedulerd.core.errors import NotFoundError
from schedulerd.core.models import new_run_id, to_text
from schedulerd.host.files import remove_tree
from tests.support.builders import NOON

HERE, THERE = BackupOwner("here", "d1"), BackupOwner("there", "d2")
RENAMED, BESIDE = BackupOwner("new", "d1"), BackupOwner("here", "d3")  # the same machine renamed; its other daemon


@pytest.fixture
def catalogue(tmp_path):
    with Catalogue(str(tmp_path / "backups"), is_created=True) as made:
        yield made


def entered(catalogue: Catalogue, data: bytes, number: int = 0, **changes) -> Manifest:
    at, run_id, digest = NOON + timedelta(seconds=number), new_run_id(NOON), hashlib.sha256(data).hexdigest()
    given = Manifest(
        filename=filename_of("b", "src", at, ".db"), job_id="b", run_id=run_id, source="src", kind="sqlite",
        created_at=to_text(at), size_bytes=len(data), sha256=digest, content_size_bytes=len(data), content_sha256=digest,
        **HERE._asdict(),
    )  # fmt: skip
    given = replace(given, **changes)
    with catalogue.partial("b", run_id, given.owner) as scratch:
        file = Path(scratch, "content")
        file.write_bytes(data)
        return catalogue.enter(str(file), given)


def test_each_of_200_flipped_bits_and_each_cut_is_found(catalogue):
    data = os.urandom(20_000)
    manifest = entered(catalogue, data)
    path = Path(catalogue.folder, manifest.filename)
    found = []
    for _ in range(200):
        place = random.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :])
        found.append(verify(catalogue, manifest.filename, NOON).is_good)
    for length in (0, 1, len(data) - 1):
        path.write_bytes(data[:length])
        found.append(verify(catalogue, manifest.filename, NOON).is_good)
    path.write_bytes(data)

    assert found == [False] * 203
    assert verify(catalogue, manifest.filename, NOON).is_good


def test_the_order_is_that_in_which_they_were_entered_whatever_the_clock_said(catalogue):
    names = [entered(catalogue, b"x", number).filename for number in (5, 9, 1)]

    assert [entry.manifest.filename for entry in catalogue.of_job("b", HERE)] == names[::-1]


@pytest.mark.parametrize("other", [THERE, RENAMED, BESIDE])
def test_each_maker_has_its_own_backups_in_a_shared_folder_and_clears_up_after_itself_alone(catalogue, other):
    ours, theirs = (entered(catalogue, b"x", number, **maker._asdict()) for number, maker in enumerate((HERE, other)))
    left = []
    for maker in (HERE, other):
        run_id = new_run_id(NOON)
        with catalogue.partial("b", run_id, maker) as scratch:
            left.append(os.path.basename(scratch))
        os.mkdir(scratch)  # as a run leaves it that was killed

    assert [entry.manifest for entry in catalogue.of_job("b", HERE)] == [ours]
    assert [entry.manifest for entry in catalogue.of_job("b", other)] == [theirs]
    assert len(catalogue.entries()) == 2
    assert catalogue.clear(HERE) == left[:1]
    assert catalogue.clear(other) == left[1:]


def test_whoever_clears_takes_what_any_job_has_left_and_nothing_of_a_run_that_lives(catalogue):
    run_id = new_run_id(NOON)
    with catalogue.partial("gone-job", run_id, HERE) as left:
        pass
    os.mkdir(left)
    Path(left, "content").write_bytes(b"in the clear")
    with catalogue.partial("b", run_id, HERE) as living:
        assert catalogue.clear(HERE) == [os.path.basename(left)]
        assert os.listdir(catalogue.folder) == [os.path.basename(living)]


def test_a_backup_that_does_not_say_its_daemon_is_its_hosts(catalogue):
    manifest = entered(catalogue, b"x", daemon="")

    assert [entry.manifest for entry in catalogue.of_job("b", BESIDE)] == [manifest]
    assert catalogue.of_job("b", RENAMED) == []


def test_a_backup_of_a_clock_that_was_ahead_is_the_newest_only_until_the_next_of_its_job(catalogue):
    ahead = to_text(NOON + timedelta(days=400))
    made = [entered(catalogue, b"x", number, job_id=job_id).filename for number, job_id in enumerate(("b", "other"))]
    wrong = entered(catalogue, b"x", 2, created_at=ahead).filename
    assert listed(catalogue) == [wrong, made[1], made[0]]
    made += [entered(catalogue, b"x", number, job_id=job_id).filename for number, job_id in enumerate(("b", "other"), 3)]

    assert listed(catalogue) == [made[3], made[2], wrong, made[1], made[0]]


def listed(catalogue):
    return [entry.manifest.filename for entry in catalogue.entries()]


def test_backups_that_were_away_while_others_were_made_come_back_to_their_place(catalogue, tmp_path):
    old, new = (entered(catalogue, b"x", number).filename for number in (1, 2))
    for name in (old, old + ".json", new, new + ".json"):
        shutil.move(os.path.join(catalogue.folder, name), tmp_path / name)
    newer = entered(catalogue, b"x", 3).filename
    for name in (old, old + ".json", new, new + ".json"):
        shutil.move(tmp_path / name, os.path.join(catalogue.folder, name))
    newest = entered(catalogue, b"x", 4).filename

    assert [entry.manifest.filename for entry in catalogue.of_job("b", HERE)] == [newest, newer, new, old]


def test_the_order_goes_on_from_manifests_that_are_not_listed(catalogue):
    last = entered(catalogue, b"x", 9)
    path = Path(catalogue.folder, last.filename)
    path.unlink()
    path.symlink_to("/etc/passwd")

    assert entered(catalogue, b"x", 1).sequence == last.sequence + 1


def test_a_manifest_that_could_not_be_read_again_is_not_written(catalogue):
    manifest = entered(catalogue, b"x")
    with pytest.raises(BackupError, match="more than 65536"):
        catalogue.change(manifest.filename, hold={"reason": "y" * 70_000})

    assert [entry.manifest for entry in catalogue.entries()] == [manifest]
    assert sorted(os.listdir(catalogue.folder)) == [manifest.filename, manifest.filename + ".json"]


def test_a_name_that_is_taken_is_not_written_over(catalogue):
    first = entered(catalogue, b"first")
    with pytest.raises(BackupError, match="already exists"):
        entered(catalogue, b"second")

    assert Path(catalogue.folder, first.filename).read_bytes() == b"first"


def test_a_manifest_is_read_back_as_it_was_written(catalogue):
    manifest = entered(catalogue, b"x", alarms=("odd",), warnings=("a", "b"))

    assert from_json(to_json(manifest)) == manifest
    assert catalogue.get(manifest.filename).manifest == manifest
    assert not catalogue.get(manifest.filename).is_good
    assert catalogue.change(manifest.filename, accepted={"at": to_text(NOON)}).is_good


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2}, {"filename": "../x"}, {"filename": "a/b"}, {"filename": ".hidden"}, {"filename": 7},
        {"sequence": True}, {"created_at": "yesterday"}, {"created_at": "2026-01-01T00:00:00"}, {"alarms": [1]},
        {"hold": "yes"}, {"size_bytes": -1},
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_of_ours_is_refused(catalogue, changes):
    value = json.loads(to_json(entered(catalogue, b"x")))

    with pytest.raises(ValueError):
        from_json(json.dumps({**value, **changes}).encode())


def test_a_link_that_takes_the_place_of_a_backup_is_not_opened(catalogue, tmp_path):
    manifest = entered(catalogue, b"x")
    path = Path(catalogue.folder, manifest.filename)
    path.unlink()
    path.symlink_to("/etc/passwd")

    with pytest.raises(NotFoundError):
        catalogue.open(manifest.filename)
    assert catalogue.entries() == []


def test_a_backup_whose_file_was_taken_away_is_missing_until_it_is_forgotten(catalogue):
    gone, stays = (entered(catalogue, b"x", number).filename for number in (1, 2))
    Path(catalogue.folder, gone).unlink()
    entry = catalogue.get(gone)

    assert (entry.is_missing, entry.is_good, entry.size_bytes, entry.doubts) == (True, False, 0, ["the file is missing"])
    with pytest.raises(NotFoundError, match="is missing from"):
        catalogue.open(gone)
    assert (catalogue.forget(gone), catalogue.forget(stays)) == (True, False)
    assert sorted(os.listdir(catalogue.folder)) == [stays, stays + ".json"]


def test_the_folder_is_read_once_however_many_files_are_missing(catalogue):
    manifest = entered(catalogue, b"x")
    Path(catalogue.folder, manifest.filename).unlink()
    for number in range(50):
        other = replace(manifest, filename=f"b-{number}.db")
        Path(catalogue.folder, other.filename + ".json").write_bytes(to_json(other))
    script = (
        "import sys; from schedulerd.backups.catalogue import Catalogue; catalogue, events = Catalogue(sys.argv[1]), []\n"
        "sys.addaudithook(lambda name, _: events.append(name)); found = catalogue.entries()\n"
        "print(sum(each.is_missing for each in found), events.count('os.listdir'))"
    )
    done = subprocess.run([sys.executable, "-c", script, catalogue.folder], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["51", "1"]


def test_a_backup_that_is_coming_in_is_not_missing(catalogue):
    manifest = entered(catalogue, b"x")
    Path(catalogue.folder, manifest.filename).unlink()
    with catalogue.partial("b", manifest.run_id, HERE):
        assert catalogue.entries() == []

    assert [entry.is_missing for entry in catalogue.entries()] == [True]


@pytest.mark.root("only root can give files away")
def test_a_change_by_root_leaves_the_manifest_to_its_owner(catalogue):
    manifest = entered(catalogue, b"x")
    shutil.chown(catalogue.folder, "nobody")
    for name in os.listdir(catalogue.folder):
        shutil.chown(os.path.join(catalogue.folder, name), "nobody")
    with Catalogue(catalogue.folder, makers=[Path(catalogue.folder).stat().st_uid]) as again:
        again.change(manifest.filename, hold={"at": to_text(NOON)})

        assert again.get(manifest.filename).manifest.hold is not None
    assert {path.owner() for path in Path(catalogue.folder).iterdir()} == {"nobody"}


@pytest.mark.parametrize(
    ("url", "visible", "env"),
    [
        ("postgresql://u:p%40ss@h:5/d", "postgresql://u@h:5/d", {"PGPASSWORD": "p@ss"}),
        ("postgresql://u@h/d?sslmode=require&password=x%20+y", "postgresql://u@h/d?sslmode=require", {"PGPASSWORD": "x +y"}),
        ("postgres:///d?host=/run/pg&passfile=/k", "postgres:///d?host=%2Frun%2Fpg", {"PGPASSFILE": "/k"}),
        ("postgresql://h/d", "postgresql://h/d", {}),
        ("postgresql://u:ab#cd?ef@/d?host=/run/pg", "postgresql://u@/d?host=%2Frun%2Fpg", {"PGPASSWORD": "ab#cd?ef"}),
        ("postgresql://u:a:b[c]@[::1]:5,h:6/d", "postgresql://u@[::1]:5,h:6/d", {"PGPASSWORD": "a:b[c]"}),
    ],
)
def test_a_password_leaves_the_url_for_the_environment(url, visible, env):
    assert postgresql(url) == (visible, env)


@given(password=st.text(alphabet="ab1:#?&=[]%+,;'\"").filter(lambda text: not re.search("%(?!1[1ab])", text)))
def test_a_url_is_taken_apart_where_libpq_does(password):
    url = f"postgresql://u:{password}@h:5/d?host=/run/pg"
    visible, env = postgresql(url)
    there = with_database(url, "new")

    assert conninfo_to_dict(visible) | ({"password": env["PGPASSWORD"]} if env else {}) == conninfo_to_dict(url)
    assert conninfo_to_dict(there) == conninfo_to_dict(url) | {"dbname": "new"}


@pytest.mark.parametrize(
    "url",
    ["u:p4ss@w0rd@h/d", "u:1234/w0rd@h/d", "u:p4ss/w0rd@h/d", "u:12/34?w0rd@h/d", "u:p4ss/w0rd", "[u:p4ss", "h/d?p4ss"],
)
def test_a_url_in_which_a_password_would_pass_for_something_else_is_refused_without_a_piece_of_it(url):
    for take in (postgresql, lambda text: with_database(text, "new")):
        with pytest.raises(BackupError, match="%40") as raised:
            take(f"postgresql://{url}")
        assert not re.search("p4ss|w0rd|12|34", str(raised.value))


def test_a_tree_is_removed_whatever_its_folders_forbid(tmp_path):
    top = tmp_path / "top"
    for each in ("shut/deep", "fixed"):
        (top / "t" / each).mkdir(parents=True)
        (top / "t" / each / "file").touch()
    (top / "t" / "fixed" / "link").symlink_to("/etc")
    if os.geteuid() == 0:
        for each in (top, *top.rglob("*")):
            os.chown(each, 65534, -1, follow_symlinks=False)
    for each, mode in (("shut/deep", 0o555), ("shut", 0), ("fixed", 0o555)):
        (top / "t" / each).chmod(mode)
    descriptor = os.open(top, os.O_RDONLY)
    before = os.geteuid()
    try:
        if before == 0:
            os.seteuid(65534)
        remove_tree("t", descriptor)
    finally:
        os.seteuid(before)
        os.close(descriptor)

    assert list(top.iterdir()) == []


def test_a_sqlite_that_stays_locked_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 1.0)
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE x (y)")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BackupError, match="locked"):
            sqlite.SOURCE_TYPE.copy({"url": f"sqlite://{path}"}, str(tmp_path / "copy"))


@pytest.mark.parametrize("password", ["p4ss#w0rd", "p4ss/w0rd", "p4ss?w0rd", "p4[ss", "12#w0rd", "12/w0rd"])
def test_a_redis_url_with_an_unclear_password_is_refused_without_a_piece_of_it(password):
    with pytest.raises(BackupError, match="%23") as raised:
        redis(f"redis://u:{password}@h/0")
    assert not re.search("p4|ss |w0rd|12", str(raised.value))


def test_another_database_of_the_same_server_is_named():
    assert with_database("postgresql://u:p@h/d?dbname=x&sslmode=require", "new") == "postgresql://u:p@h/new?sslmode=require"


def test_a_redis_url_is_what_redis_cli_wants():
    found = redis("unix://:p%40@/run/redis.sock?db=3")
    assert (found.path, found.login, found.env) == ("/run/redis.sock", (), {"REDISCLI_AUTH": "p@"})
    found = redis("redis://me:pw@h/0")
    assert (found.path, found.host, found.port, found.tls) == (None, "h", 6379, None)
    assert (found.login, found.env) == (("--user", "me"), {"REDISCLI_AUTH": "pw"})


@pytest.mark.parametrize(
    ("query", "tls"),
    [
        ("", RedisTls()),
        ("?ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k", RedisTls("/ca", certfile="/c", keyfile="/k")),
        ("?ssl_check_hostname=False&ssl_cert_reqs=required", RedisTls(checks_host=False)),
        ("?ssl_cert_reqs=none&ssl_check_hostname=true", RedisTls(is_verified=False, checks_host=False)),
    ],
)
def test_certificates_and_names_are_checked_unless_the_url_says_no(query, tls):
    found = redis(f"rediss://h:7/0{query}")
    assert (found.host, found.port, found.tls) == ("h", 7, tls)


def test_a_word_about_tls_that_is_not_known_is_refused():
    with pytest.raises(BackupError, match="has the unknown parameter ssl_cafile: expected one of ssl_ca_certs, "):
        redis("rediss://h?ssl_cafile=/ca")
