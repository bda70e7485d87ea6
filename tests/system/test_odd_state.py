"""A state directory in which things are not what they should be: they are set aside and told, and the daemon starts."""

import os

import pytest

from tests.support.daemon import RunningDaemon

FILES = ("lock", "outage.journal", "keepsakes.json", "admin.token", "keeper/0/lock", "keeper/0/journal", "keeper/0/errors")
MORE = ("schedulerd.sock.lock", "history.db.lock", "keepsakes.json.new", "keeper/0/socket", "keeper/0/journal.new")
COPY = ("last_good/config.json", "last_good/config.json.new")


@pytest.fixture
def daemon(tmp_path):
    made = RunningDaemon(tmp_path, {"jobs": {"job": {"startup": True, "command": ["/bin/true"]}}})
    (tmp_path / "state").mkdir(mode=0o700)
    yield made
    made.close()


def test_folders_where_files_should_be_are_set_aside(daemon, tmp_path):
    for name in (*FILES, *MORE, *COPY):
        (tmp_path / "state" / name / "inside").mkdir(parents=True)
    daemon.start()
    daemon.until_run("job", "success")

    for name in (*FILES, *MORE, *COPY):
        (aside,) = tmp_path.glob(f"state/{name}.aside-*")
        assert (aside / "inside").is_dir()
        assert f"{tmp_path}/state/{name} was not what the daemon needs there: it is set aside as {aside}" in daemon.log()


def test_links_where_locks_should_be_are_set_aside_and_lead_nowhere(daemon, tmp_path):
    (tmp_path / "precious").write_text("precious")
    names = ("lock", "schedulerd.sock.lock", "history.db.lock", "keeper/lock")
    (tmp_path / "state" / "keeper").mkdir()
    for name in names:
        (tmp_path / "state" / name).symlink_to(tmp_path / "precious")
    daemon.start()
    daemon.until_run("job", "success")

    assert [len(list(tmp_path.glob(f"state/{name}.aside-*"))) for name in names] == [1] * len(names)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("names", [("keeper", "output", "last_good"), ("keeper/0", "keeper/1")], ids=["outer", "inner"])
def test_files_where_folders_should_be_are_set_aside(daemon, tmp_path, names):
    for name in names:
        (tmp_path / "state" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "state" / name).write_text("precious")
    daemon.start()
    daemon.until_run("job", "success")

    for name in names:
        (aside,) = tmp_path.glob(f"state/{name}.aside-*")
        assert aside.read_text() == "precious"


def test_what_is_read_wrongly_or_for_ever_is_set_aside(daemon, tmp_path):
    state = tmp_path / "state"
    (state / "keeper" / "0").mkdir(parents=True)
    (state / "keeper" / "0" / "journal").write_text('[1]\n7\n{"kind":"start","run":"r","pid":"x"}\n')
    (state / "keepsakes.json").write_text('{"gone": 7}')
    (state / "outage.journal").symlink_to("/etc/passwd")
    os.mkfifo(state / "keeper" / "0" / "errors")
    os.mkfifo(state / "keeper" / "0" / "journal.new")
    daemon.start()
    daemon.until_run("job", "success")

    assert "3 damaged lines" in daemon.log()
    assert len(list(state.glob("keeper/0/journal.damaged-*"))) == 1
    assert len(list(state.glob("keepsakes.json.damaged-*"))) == 1
    assert len(list(state.glob("**/*.aside-*"))) == 3
