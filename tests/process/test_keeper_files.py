"""Somebody removes the files of a keeper that lives: the next daemon finds it, no second one is started, no end is lost."""

import os
import shutil
import signal
from contextlib import closing
from pathlib import Path

import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.process import keeper_connection
from schedulerd.process.spec import ProcessSpec
from schedulerd.process.supervisor import Supervisor
from tests.support.daemon import keepers
from tests.support.heard import Heard
from tests.support.waiting import until

RUN = "019f1d8c-e200-7000-a2ef-22a720102de6"


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    for pid in keepers(tmp_path):
        os.kill(pid, signal.SIGKILL)


def begin(folder: Path, heard: Heard) -> tuple[Supervisor, set[str]]:
    """Return the supervisor of a daemon that starts, and the runs that its keepers know."""
    made = Supervisor(str(folder / "keeper"), SystemClock(), heard)
    known = made.recover()
    made.start()
    return made, set(known)


def begin_a_run(made: Supervisor, heard: Heard, folder: Path) -> Path:
    """Start a run that ends with 7 when its fifo is written to, and return the folder of its keeper."""
    os.mkfifo(folder / "fifo")
    script = f"read line < {folder}/fifo; exit 7"
    made.launch(RUN, ProcessSpec(["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}, str(folder / "out")))
    assert heard.starts.get(timeout=10)[0] == RUN
    return next(each.parent for each in folder.glob("keeper/*/journal") if RUN in each.read_text())


def end_of_it(heard: Heard, folder: Path) -> tuple[int | None, str | None]:
    (folder / "fifo").write_text("go\n")
    end = heard.ends.get(timeout=10)
    return end.exit_code, end.lost


@pytest.mark.parametrize("names", [["socket"], ["lock", "socket"]])
def test_a_daemon_that_starts_finds_a_keeper_whose_files_were_removed(folder, names):
    with closing(begin(folder, Heard())[0]) as made:
        place = begin_a_run(made, heard := made._reports._observer, folder)
    before = set(keepers(folder))
    for name in names:
        (place / name).unlink()

    made, known = begin(folder, heard := Heard())
    with closing(made):
        assert known == {RUN}
        assert before <= set(keepers(folder))
        assert end_of_it(heard, folder) == (7, None)


def test_a_daemon_that_starts_finds_the_keepers_whose_folders_were_removed(folder):
    with closing(begin(folder, Heard())[0]) as made:
        begin_a_run(made, made._reports._observer, folder)
    shutil.rmtree(folder / "keeper")

    made, known = begin(folder, heard := Heard())
    with closing(made):
        assert known == {RUN}
        assert end_of_it(heard, folder) == (7, None)


def test_a_keeper_makes_files_again_that_were_removed_and_goes_on(folder, caplog):
    with closing(begin(folder, Heard())[0]) as made:
        place = begin_a_run(made, heard := made._reports._observer, folder)
        assert made.restore() == []
        before = set(keepers(folder))
        for name in ("lock", "socket"):
            (place / name).unlink()
        made.restore()

        until(lambda: (place / "socket").exists() and (place / "lock").exists(), "the files")
        assert made.restore() == []
        assert end_of_it(heard, folder) == (7, None)
        assert set(keepers(folder)) == before
    assert caplog.text.count(f"files of the keeper of {place} were removed: lock, socket") == 1


def test_files_that_a_keeper_cannot_make_again_are_told(folder):
    with closing(begin(folder, Heard())[0]) as made:
        place = begin_a_run(made, heard := made._reports._observer, folder)
        for name in ("lock", "socket"):
            (place / name).unlink()
        (place / "lock").mkdir()
        made.restore()

        assert made.restore() == [f"files of the keeper of {place} were removed: socket, and could not be created again"]
        assert end_of_it(heard, folder) == (7, None)


def test_two_daemons_that_take_each_others_keepers_wait_longer_and_longer(folder, caplog, monkeypatch):
    monkeypatch.setattr(keeper_connection, "FIRST_WAIT", 0.1)
    with closing(begin(folder, Heard())[0]), closing(begin(folder, Heard())[0]):
        until(lambda: "was lost 4 times in a row: next attempt in 0.4 s" in caplog.text, "a wait")
        lost = caplog.text.count("is gone: another one takes its place")
    assert lost < 60
