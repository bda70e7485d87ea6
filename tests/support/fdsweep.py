"""Operations, each of whose calls that make a descriptor or a process fails once; tells which of them leak.

`python -m tests.support.fdsweep FOLDER` with the environment of `Faults`; prints a JSON object by operation.
"""

import gc
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from schedulerd.actions.probes import storage
from schedulerd.api.listeners import bind_tcp, bind_unix
from schedulerd.api.tokens import Tokens
from schedulerd.backups.catalogue import Catalogue
from schedulerd.backups.manifest import BackupOwner
from schedulerd.backups.sqlite import SOURCE_TYPE as SQLITE
from schedulerd.config.config import ApiSettings
from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import SchedulerdError, StartError, StoreError
from schedulerd.core.models import new_run_id
from schedulerd.host.files import fsync_folder, read_regular, write_private
from schedulerd.host.identity import owner_at
from schedulerd.host.locks import PathLock
from schedulerd.process.keeper.journal import KeeperJournal
from schedulerd.process.keeper.launch import NotStartedError, launch
from schedulerd.process.keeper.output_cap import OutputCap
from schedulerd.process.keeper.procfs import children_of_mine, marked, process, processes, send
from schedulerd.process.keeper.run_cgroups import RunCgroups
from schedulerd.process.keeper_starter import KeeperStarter
from schedulerd.process.output import OutputFolder
from schedulerd.secrets.job_archive import JobArchive
from schedulerd.store.outage_journal import OutageJournal, OutageJournalError
from schedulerd.store.sqlite.store import SqliteStore
from tests.support.fdfault import EVERYTHING, Faults

FAULTS = Faults(Path(os.environ["FDFAULT"]))
FOLDER = Path(sys.argv[1])
MAKER = BackupOwner("host", "daemon")
MOST = 6  # of an operation with more calls, so many at its beginning, at its end and in between are tried
NUMBERS = count()


def fresh(name: str) -> str:
    """Return a path that is not taken."""
    return str(FOLDER / f"{name}-{next(NUMBERS)}")


def start(**more: object) -> None:
    """Start a child and wait for its end."""
    order = {"start": "r", "argv": ["/bin/true"], "env": {}, "output": fresh("output"), "grace": 1.0, **more}
    os.waitpid(launch(order, descriptors=64), 0)


def flood() -> None:
    """Leave an output that is to be cut."""
    (FOLDER / "watched").write_bytes(bytes(400_000))


def capping() -> None:
    """Watch an output, cut it, and end it."""
    made = OutputCap()
    path = str(FOLDER / "watched")
    try:
        made.watch("r", path, 65536)
        made.poll()
        if made.descriptor >= 0:
            made.check()
        made.end("r", keeps_leftovers=True)
    finally:
        if made.descriptor >= 0:
            os.close(made.descriptor)


def journal() -> None:
    """Write a journal, and write it anew."""
    path = fresh("journal")
    made = KeeperJournal(path, "boot")
    try:
        made.note("intent", "r", {})
        made.sync()
        KeeperJournal(path, "boot").close() if hasattr(KeeperJournal, "close") else None
    finally:
        os.close(made._file)


def summon() -> None:
    """Start a keeper, be greeted by it, and leave it."""
    starter = KeeperStarter(fresh("keeper"))
    try:
        connection, _ = starter.connect()
    except StartError:
        starter.kill()
        raise
    connection.close()
    starter.reap(10)


def family() -> None:
    """Look at processes."""
    processes()
    children_of_mine()
    marked("nobody")
    found = process(os.getpid())
    assert found is not None
    send(found, 0)


def lock() -> None:
    """Lock a path as a second daemon would meet it."""
    place = FOLDER / "locked"
    place.mkdir(exist_ok=True)
    PathLock(str(place), f"{place}.lock", "the place", is_folder=True).close()


def doors() -> None:
    """Bind both doors of the API."""
    path = str(FOLDER / "door")
    with bind_unix(ApiSettings(socket=path), str(FOLDER)), suppress(FileNotFoundError):
        os.unlink(path)
    tcp = bind_tcp(ApiSettings(socket=path, host="127.0.0.1", port=0))
    assert tcp is not None
    tcp.close()


def outputs() -> None:
    """Make, write and read the output of a run."""
    folder = OutputFolder(str(FOLDER / "outputs"))
    run_id = new_run_id(SystemClock().now())
    write_private(folder.make(run_id), "said")
    folder.tail(run_id, 100, ())
    folder.stats(run_id)
    folder.settle(run_id)


def history() -> None:
    """Open a history with its outage journal, write into it and read from it."""
    clock = SystemClock()
    path = str(FOLDER / "history.db")
    journal = OutageJournal(f"{path}.journal", 1 << 20)
    try:
        journal.append([b"record"], clock.now())
        list(journal.records())
        with suppress(OutageJournalError):
            os.unlink(journal.keep_copy(clock.now()))
        journal.empty()
    finally:
        journal.close()
    store = SqliteStore(path, clock, opens=False)
    try:
        store.open()
        store.history("job", 10)
    finally:
        store.close()


def files() -> None:
    """Read and write small files of ours."""
    path = str(FOLDER / "file")
    write_private(path, "text")
    read_regular(path, 100)
    fsync_folder(str(FOLDER))
    JobArchive(str(FOLDER / "keepsakes.json")).record({})
    tokens = Tokens(str(FOLDER), SystemClock())
    tokens.create_first()
    owner_at(str(FOLDER))


def backups() -> None:
    """Copy a SQLite file, and look at a catalogue."""
    source, target = str(FOLDER / "source.db"), fresh("copy.db")
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (a)")
    SQLITE.copy({"url": f"sqlite://{source}", "source": "s"}, target)
    with Catalogue(str(FOLDER / "catalogue"), is_created=True) as catalogue:
        catalogue.entries()
        with catalogue.partial("job", "run", MAKER):
            pass
        catalogue.clear(MAKER)


def probes() -> None:
    """Probe a folder."""
    storage.probe(str(FOLDER), {}, "run", lambda _closer: None)


OPERATIONS: dict[str, tuple[Callable[[], object], tuple[type[BaseException], ...]]] = {
    "start": (start, (NotStartedError,)),
    "start with input": (lambda: start(input="x"), (NotStartedError,)),
    "start by fork": (lambda: start(umask=0o77, input="x"), (NotStartedError,)),
    "capping": (capping, ()),
    "family": (family, (OSError,)),
    "groups": (lambda: RunCgroups("0").members("r"), (OSError,)),
    "summon": (summon, (StartError,)),
    "lock": (lock, (SchedulerdError, OSError)),
    "doors": (doors, (SchedulerdError, OSError)),
    "outputs": (outputs, (OSError,)),
    "history": (history, (StoreError, OSError)),
    "files": (files, (SchedulerdError, OSError)),
    "backups": (backups, (SchedulerdError, OSError, sqlite3.Error)),
    "probes": (probes, (OSError,)),
}


def descriptors() -> set[str]:
    """Return the descriptors that this process has."""
    return set(os.listdir("/proc/self/fd"))


def sweep(operation: Callable[[], object], expected: tuple[type[BaseException], ...]) -> dict[str, object]:
    """Fail the first call, the second, and so on."""
    operation()  # what is read once is read now
    FAULTS.fail(0, EVERYTHING)
    operation()
    calls = FAULTS.stop()
    gc.collect()
    gc.freeze()  # so that a later look at what is left is a quick one
    leaks, odd = [], []
    many = {*range(1, MOST), *range(MOST, calls - MOST, 1 + calls // MOST), *range(calls - MOST, calls + 1)}
    for at in sorted(each for each in many if 0 < each <= calls):
        before = descriptors()
        FAULTS.fail(at, EVERYTHING)
        try:
            operation()
        except expected:
            pass
        except BaseException as error:
            odd.append(f"call {at}: {error!r}")
        FAULTS.stop()
        gc.collect()
        if left := descriptors() - before:
            leaks.append(f"call {at}: {[_target(each) for each in left]}")
    return {"calls": calls, "leaks": leaks, "odd": odd}


def _target(descriptor: str) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return descriptor


if __name__ == "__main__":
    del os.environ["LD_PRELOAD"]  # it is the calls of this process that are counted
    flood()
    print(json.dumps({name: sweep(*operation) for name, operation in OPERATIONS.items()}))
