"""A damaged history: noticed, set aside with all that belongs to it, told with a way out; what isn't ours is left alone."""

import os
import sqlite3
from datetime import timedelta

import pytest

from schedulerd.core.errors import StoreError
from schedulerd.core.models import Result, Status, finish
from schedulerd.store.sqlite.store import SqliteStore, damage
from tests.support.builders import NOON, a_run

PAGE = 4096


@pytest.fixture
def history(tmp_path):
    """The path of a history with some rows."""
    path = tmp_path / "history.db"
    store = SqliteStore(str(path))
    store.record([a_run(f"job{number}", details={"text": "x" * 500}) for number in range(500)]).result(10)
    store.close()
    return path


def cut(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip(path, page=20):
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(bytes(byte ^ 0xFF for byte in os.urandom(PAGE)))


def overwrite(path):
    path.write_bytes(b"something else " * 1000)


def set_aside(path):
    return [name for name in os.listdir(path.parent) if ".damaged-" in name]


@pytest.mark.parametrize("harm", [cut, flip, overwrite, lambda path: flip(path, page=0)])
def test_a_damaged_history_is_set_aside_and_a_new_one_is_begun(history, harm, caplog):
    harm(history)
    damaged = history.read_bytes()
    store = SqliteStore(str(history), is_own=True)
    run = a_run()

    assert store.record([run]).result(10) == {run.run_id}
    assert store.counts() == {"running": 1}
    (aside,) = set_aside(history)
    assert (history.parent / aside).read_bytes() == damaged
    assert f"{aside} .recover" in store.alarm
    assert "is damaged" in caplog.text
    store.close()


def test_the_alarm_lasts_until_the_damaged_file_is_moved_away(history):
    cut(history)
    SqliteStore(str(history)).close()
    store = SqliteStore(str(history))
    assert "was set aside" in store.alarm

    os.unlink(history.parent / set_aside(history)[0])
    assert store.alarm is None
    store.close()


@pytest.mark.parametrize("name", ["folder", "text", "theirs"])
def test_what_is_not_ours_is_refused_and_left_alone(tmp_path, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "text":
        path.write_text("root:x:0:0\n")
    else:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE theirs (x)")
        connection.close()

    with pytest.raises(StoreError, match="store:"):
        SqliteStore(str(path))
    assert not set_aside(path)
    assert path.exists()


def test_damage_that_is_found_in_use_is_looked_for_to_the_end_at_the_next_start(history, monkeypatch):
    store = SqliteStore(str(history))
    monkeypatch.setattr(damage, "CHECK_SECONDS", 0.0)
    for page in range(1, history.stat().st_size // PAGE):
        flip(history, page)
    with pytest.raises(StoreError, match="cannot be read"):
        store.recent(1000)

    assert "is damaged" in store.alarm
    store.close()
    again = SqliteStore(str(history))
    assert again.record([run := a_run(at=NOON)]).result(10) == {run.run_id}
    assert set_aside(history)
    again.close()


def test_a_file_that_is_too_large_to_be_looked_through_is_opened_all_the_same(history, monkeypatch):
    monkeypatch.setattr(damage, "CHECK_SECONDS", 0.0)
    store = SqliteStore(str(history))

    assert store.counts() == {"running": 500}
    store.close()


def test_an_unclean_end_is_no_damage(history):
    store = SqliteStore(str(history))
    store.record([a_run(f"more{number}") for number in range(100)]).result(10)
    for name in ("history.db", "history.db-wal"):
        (history.parent / f"killed-{name}").write_bytes((history.parent / name).read_bytes())
    again = SqliteStore(str(history.parent / "killed-history.db"))

    assert again.counts() == {"running": 600}
    assert again.alarm is None
    again.close()
    store.close()


def test_a_write_ahead_log_that_is_not_its_own_is_kept_when_a_history_is_closed(history):
    store = SqliteStore(str(history))
    log = history.with_name("history.db-wal")
    log.rename(history.with_name("moved-wal"))
    log.write_bytes(b"theirs")
    store.close()
    (left,) = history.parent.glob("history.db.left-*")

    assert left.read_bytes() == b"theirs"


@pytest.mark.slow
def test_a_slow_reader_does_not_let_the_write_ahead_log_grow(tmp_path):
    store = SqliteStore(str(tmp_path / "h.db"))
    first = [a_run(f"job{number}", details={"text": "x" * 1000}) for number in range(2000)]
    store.record(first).result(10)
    store.finish([finish(run, Result(Status.SUCCESS), NOON, 1.0) for run in first]).result(10)
    reading = store.ended_between(NOON, NOON + timedelta(days=1))
    next(reading)
    for batch in range(20):
        store.record([a_run(f"b{batch}-{number}", details={"text": "x" * 1000}) for number in range(2000)]).result(10)

    assert os.stat(f"{store.path}-wal").st_size <= 64 * 1024**2
    assert len(list(reading)) == 1999
    store.close()
