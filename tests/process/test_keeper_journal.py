"""The keeper's journal on real, small and damaged disks: what it says is true, and what it cannot say is not started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.process.keeper.journal import KeeperJournal
from schedulerd.process.keeper.procfs import Process, boot_id, processes
from schedulerd.process.spec import Cause, ProcessSpec
from schedulerd.process.supervisor import Supervisor
from tests.support.builders import NOON
from tests.support.daemon import keepers
from tests.support.heard import Heard
from tests.support.iofault import IoFault
from tests.support.small_disk import fill, needs_root, on_disk_of
from tests.support.waiting import until

RUN = f"r{os.getpid()}"  # a keeper knows what it starts by its mark, among the processes of all who test here


class World:
    """The keepers of a folder, as one daemon after the other sees them."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out = folder, out
        self.heard, self.known = Heard(), {}
        self.made = self.doubt = None

    def begin(self) -> Supervisor:
        self.heard = Heard()
        self.made = Supervisor(str(self.folder / "keeper"), SystemClock(), self.heard)
        self.known = self.made.recover()
        self.doubt = self.made.doubt_of("unknown")
        return self.made

    def settle(self) -> Supervisor:
        made = self.begin()
        made.settled()
        made.start()
        return made

    def launch(self, run_id: str, script: str) -> None:
        env = {"PATH": "/usr/bin:/bin", "SCHEDULERD_RUN_ID": run_id, "WORLD": str(self.folder)}
        self.made.launch(run_id, ProcessSpec(["/bin/sh", "-c", script], env, str(self.out / f"{run_id}.log")))

    def left(self) -> list[Process]:
        """Return the children that still run."""
        mine = os.fsencode(f"WORLD={self.folder}")
        return [each for each in processes() if mine in environment(each.pid)]

    def crash(self) -> None:
        """End this daemon as a kill would: no keeper is waited for."""
        for link in self.made._pool.connections:
            link.runs["not idle"] = None
        self.made.close()
        self.made = None


def environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, tmp_path)
    yield made
    if made.made is not None:
        made.crash()
    for pid in [*keepers(tmp_path), *(child.pid for child in made.left())]:
        os.kill(pid, signal.SIGKILL)


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob("keeper/*/journal"))


def until_settled(folder: Path) -> None:
    """Return when it is in the journals that nothing earlier is open any more."""
    until(lambda: all(b'"settled"' in path.read_bytes() for path in journals(folder)), "it")


def kill_keepers(folder: Path) -> None:
    for pid in keepers(folder):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not keepers(folder), "their end")


def test_once_settled_the_journals_prove_what_was_never_started(world):
    world.settle()
    world.crash()
    until(lambda: not keepers(world.folder), "the end of the keepers")
    world.begin()

    assert world.doubt is None


def test_the_proof_holds_when_keepers_are_killed_too(world):
    world.settle()
    world.launch(RUN, "exec sleep 60")
    world.heard.starts.get(timeout=10)
    world.crash()
    kill_keepers(world.folder)
    world.begin()

    assert world.doubt is None
    assert set(world.known) == {RUN}


@pytest.mark.parametrize("harm", ["missing", "damaged", "other boot", "earlier version", "not settled"])
def test_nothing_is_proved_by_a_journal_that_may_have_lost_something(world, harm):
    if harm == "not settled":
        world.begin()
        world.made.start()
    else:
        world.settle()
    world.crash()
    until(lambda: not keepers(world.folder), "the end of the keepers")
    path = journals(world.folder)[0]
    if harm == "missing":
        path.unlink()
    elif harm == "damaged":
        path.write_bytes(path.read_bytes().replace(b"\0", b"") + b"[1]\n")
    elif harm == "other boot":
        path.write_bytes(path.read_bytes().replace(boot_id().encode(), b"x" * 36))
    elif harm == "earlier version":
        path.write_bytes(path.read_bytes().replace(b',"format":2', b""))
    world.begin()
    assert world.doubt is not None
    world.crash()
    until(lambda: not keepers(world.folder), "the end of the keepers")
    world.settle()
    assert world.made._pool.connections[0].doubt is not None  # it lasts until all is settled, whoever asks
    world.crash()
    until(lambda: not keepers(world.folder), "the end of the keepers")
    world.begin()
    assert world.doubt is None


def test_a_run_that_was_forgotten_is_not_called_never_started(world):
    world.settle()
    world.launch(RUN, "true")
    world.heard.ends.get(timeout=10)
    world.made.forget([RUN])
    world.crash()
    world.begin()

    assert "older copy" in world.made.doubt_of(RUN)
    assert world.made.doubt_of("s") is None


def test_a_start_that_was_given_to_a_keeper_whose_journal_is_lost_is_not_given_again(world):
    world.settle()
    before = keepers(world.folder)
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    world.launch(RUN, f"echo ran >> {world.folder}/ran")
    for path in journals(world.folder):
        path.unlink()
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    assert "is unknown" in world.heard.ends.get(timeout=20).lost
    world.launch("next", "exit 4")
    assert world.heard.ends.get(timeout=10).exit_code == 4
    assert not (world.folder / "ran").exists()


# A disk that fails


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Lets calls of the keepers fail."""
    made = IoFault(tmp_path)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made


def begin_a_run(world: World) -> None:
    """Start a run that ends with 7 when its fifo is written to."""
    os.mkfifo(world.folder / "fifo")
    world.launch(RUN, f"read line < {world.folder}/fifo; exit 7")
    world.heard.starts.get(timeout=10)


def end_the_run(world: World) -> None:
    (world.folder / "fifo").write_text("go\n")


def test_a_keeper_that_could_neither_write_an_end_nor_tell_it_stays_until_it_could(world, disk):
    world.settle()
    begin_a_run(world)
    world.crash()
    disk.fail("sync,write", "journal")
    end_the_run(world)
    until(lambda: not world.left() and len(keepers(world.folder)) == 1, "the end of the run, and of the other keeper")
    before = disk.count()
    until(lambda: disk.count() > before, "another try")
    assert len(keepers(world.folder)) == 1
    disk.heal()
    until(lambda: not keepers(world.folder), "the end of the keeper")
    world.settle()

    assert world.heard.ends.get(timeout=10).exit_code == 7


def test_a_daemon_that_comes_is_told_an_end_that_could_not_be_written_and_what_is_wrong(world, disk):
    world.settle()
    begin_a_run(world)
    world.crash()
    disk.fail("sync,write", "journal")
    end_the_run(world)
    until(disk.count, "the first try")
    world.settle()
    assert world.heard.ends.get(timeout=10).exit_code == 7
    until(
        lambda: "cannot write its journal, and starts nothing: " in (world.made.trouble or ""),
        "the trouble",
    )
    world.made.forget([RUN])
    world.crash()

    until(lambda: not keepers(world.folder), "the end of the keepers")


@pytest.mark.skipif(os.cpu_count() == 1, reason="there is one keeper on a single core")
def test_what_one_keeper_cannot_write_into_its_journal_the_other_one_starts(world, disk):
    world.settle()
    disk.fail("write", "keeper/0/journal")
    for number in range(6):
        world.launch(f"r{number}", "exit 4")

    assert {world.heard.ends.get(timeout=10).exit_code for _ in range(6)} == {4}
    until(lambda: "keeper/0: it cannot write" in (world.made.trouble or ""), "the trouble")
    disk.heal()
    until(lambda: world.made.trouble is None, "no trouble")


def test_what_no_keeper_can_write_into_its_journal_is_not_started_and_told(world, disk):
    world.settle()
    until_settled(world.folder)
    disk.fail("write", "journal")
    world.launch(RUN, f"touch {world.folder}/ran")
    run_id, why = world.heard.refusals.get(timeout=10)
    assert (run_id, "cannot be written: Input/output error" in why) == (RUN, True)
    world.crash()
    kill_keepers(world.folder)
    disk.heal()
    world.settle()
    assert world.known == {}
    assert world.doubt is None
    world.launch("next", "exit 4")

    assert world.heard.ends.get(timeout=10).exit_code == 4
    assert not (world.folder / "ran").exists()


SCRIPT = """
import os, sys
from datetime import UTC, datetime
from schedulerd.process.keeper import journal
journal.LARGEST = 4000
made = journal.KeeperJournal(sys.argv[1], "boot", datetime.now(UTC))
intent = {"since": 1.0, "deadline": None, "grace": 1.0, "keep": False, "output": "/o", "limit": None}
made.intend({"long": intent})
before = len(os.listdir("/proc/self/fd"))
for number in range(200):
    made.intend({f"r{number}": intent})
    made.note("start", f"r{number}", {"pid": 1, "began": 1, "at": 1.0})
    made.forget([f"r{number}"])
made.intend({"last": intent})
made.note("start", "long", {"pid": 2, "began": 2, "at": 2.0})
made.flush()
print(len(os.listdir("/proc/self/fd")) - before)
os._exit(0)
"""


@pytest.mark.parametrize("rule", [None, ("folder", "keeper"), ("rename", "journal"), ("sync", "journal")])
def test_a_journal_that_cannot_be_written_anew_stays_whole_and_leaks_no_descriptor(tmp_path, disk, rule):
    path = tmp_path / "keeper" / "journal"
    path.parent.mkdir()
    first = KeeperJournal(str(path), "boot", NOON)
    first.settle()
    first.sync()
    if rule is not None:
        disk.fail(*rule)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True)

    assert int(done.stdout) <= 0
    read = KeeperJournal(str(path), "boot", NOON)
    assert set(read.runs) == {"long", "last"}
    assert read.runs["long"]["start"]["pid"] == 2
    assert read.doubt is None


# A full disk


@needs_root
@on_disk_of("2500k")
def test_what_starts_and_ends_on_a_full_disk_is_known_to_the_next_daemon(folder):
    disk = folder / "disk"
    world = World(disk, folder)
    world.settle()
    until_settled(disk)
    fill(disk)
    os.mkfifo(folder / "fifo")
    world.launch("long", f"read line < {folder}/fifo; exit 5")
    for number in range(700):  # more than the room that is reserved, were nothing written anew
        world.launch(f"r{number}", "exit 4")
        assert world.heard.ends.get(timeout=10).exit_code == 4
        world.made.forget([f"r{number}"])
    world.crash()
    (folder / "fifo").write_text("go\n")
    until(lambda: not keepers(disk), "the end of the keepers")
    world.settle()

    assert set(world.known) == {"long"}
    assert world.heard.ends.get(timeout=10).exit_code == 5
    assert world.doubt is None
    world.made.forget(["long"])
    world.made.close()


@needs_root
@on_disk_of("200k")
def test_without_room_nothing_is_started_unwritten_and_what_was_started_is_written(folder):
    disk = folder / "disk"
    world = World(disk, folder)
    world.settle()
    fill(disk)
    os.mkfifo(folder / "fifo")
    started, refused = set(), None
    number = 0
    while refused is None:
        world.launch(f"r{number}", f"read line < {folder}/fifo")
        number += 1
        until(lambda: not (world.heard.starts.empty() and world.heard.refusals.empty()), "a word")
        while not world.heard.starts.empty():
            started.add(world.heard.starts.get()[0])
        refused = None if world.heard.refusals.empty() else world.heard.refusals.get()
    assert "the disk is full" in refused[1]
    world.crash()
    kill_keepers(disk)
    (disk / "filler").unlink()
    world.settle()

    assert set(world.known) == started
    for run_id in started:
        world.made.end(run_id, Cause.CANCEL)
    assert {world.heard.ends.get(timeout=10).run_id for _ in started} == started
    world.made.forget(started)
    world.made.close()


# A damaged journal


INTENT = '{"kind":"intent","run":"r","since":1.0,"deadline":null,"grace":1.0,"keep":false,"output":"/o","limit":null}'
ODD = [
    "[1]", "7", "null", '"text"', "{}", "{", '{"kind":7}', '{"kind":["start"]}', '{"kind":"start","run":"r","pid":"1"}',
    '{"kind":"start","run":"../r","pid":1,"began":1,"at":1}', '{"kind":"start","run":["r"],"pid":1,"began":1,"at":1}',
    '{"kind":"start","run":"r","pid":1,"began":1,"at":1e400}', '{"kind":"start","run":"r","pid":1,"began":1,"at":NaN}',
    '{"kind":"forget","runs":7}', '{"kind":"forget","runs":[[1]]}', '{"kind":"end","run":"r","at":1,"cause":7}',
    '{"kind":"boot"}', '{"kind":"boot","id":7}', '{"kind":"doubt"}', '{"kind":"forgotten","to":null}', "[" * 100_000,
    INTENT.replace("1.0", '"1"'), INTENT.replace('"/o"', "null"), INTENT.replace("false", "[]"), "\udcff",
    INTENT.replace("}", ',"group":[1]}'), INTENT.replace("}", ',"who":"me"}'), INTENT.replace('"/o"', '"\\u0000"'),
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_an_odd_line_is_left_out_and_kept_aside_and_the_others_are_used(tmp_path, odd):
    path = tmp_path / "journal"
    good = INTENT.replace('"r"', '"good"')
    content = os.fsencode(f'{{"kind":"boot","id":"boot","format":2}}\n{odd}\n{good}\n')
    path.write_bytes(content)
    made = KeeperJournal(str(path), "boot", NOON)

    assert set(made.runs) == {"good"}
    (aside,) = tmp_path.glob("journal.damaged-*")
    assert aside.read_bytes() == content
    assert str(aside) in made.troubles[0]
    assert "damaged" in made.doubt


def test_a_keeper_whose_journal_is_odd_starts_and_says_so(world, caplog):
    for place in ("0", "1"):
        (world.folder / "keeper" / place).mkdir(parents=True)
        (world.folder / "keeper" / place / "journal").write_bytes(b'[1]\n{"kind":"end","run":"r","at":"x"}\n\xff\n')
    world.settle()
    world.launch("next", "exit 4")

    assert world.heard.ends.get(timeout=10).exit_code == 4
    until(lambda: "damaged lines; it is kept as" in caplog.text, "the word")


def test_a_journal_of_an_earlier_version_is_read_also_behind_reserved_zeros(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(b'{"kind":"boot","id":"boot"}\n' + bytes(5000) + INTENT.encode() + b"\n" + bytes(5000))
    made = KeeperJournal(str(path), "boot", NOON)

    assert set(made.runs) == {"r"}
    assert made.troubles == []
    assert "earlier version" in made.doubt
