"""Operations, each of whose calls that make a descriptor or a process fails once; tells which of them leak.

`python -m tests.support.fdsweep FOLDER NAME` with the environment of `Faults`; prints a JSON object.
"""

import gc
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from schedulerd.errors import StartError
from schedulerd.keeper.capping import Capping
from schedulerd.keeper.family import children_of_mine, marked, process, processes, send
from schedulerd.keeper.groups import Groups
from schedulerd.keeper.journal import Journal
from schedulerd.keeper.launch import NotStartedError, launch
from schedulerd.summoning import Summoner
from tests.support.fdfault import EVERYTHING, Faults

FAULTS = Faults(Path(os.environ["FDFAULT"]))
FOLDER = Path(sys.argv[1])
made = 0


def fresh(name: str) -> str:
    """Return a path that is not taken."""
    global made
    made += 1
    return str(FOLDER / f"{name}-{made}")


def start(**more: object) -> None:
    """Start a child and wait for its end."""
    order = {"start": "r", "argv": ["/bin/true"], "env": {}, "output": fresh("output"), "grace": 1.0, **more}
    os.waitpid(launch(order, descriptors=64), 0)


def flood() -> None:
    """Leave an output that is to be cut."""
    (FOLDER / "watched").write_bytes(bytes(400_000))


def capping() -> None:
    """Watch an output, cut it, and end it."""
    made = Capping()
    path = str(FOLDER / "watched")
    try:
        made.watch("r", path, 65536)
        made.poll()
        if made.descriptor >= 0:
            made.look()
        made.end("r", keeps_leftovers=True)
    finally:
        if made.descriptor >= 0:
            os.close(made.descriptor)


def journal() -> None:
    """Write a journal, and write it anew."""
    path = fresh("journal")
    made = Journal(path, "boot")
    try:
        made.note("intent", "r", {})
        made.sync()
        Journal(path, "boot").close() if hasattr(Journal, "close") else None
    finally:
        os.close(made._file)


def summon() -> None:
    """Start a keeper, be greeted by it, and leave it."""
    summoner = Summoner(fresh("keeper"))
    try:
        connection, _ = summoner.summon()
    except StartError:
        summoner.kill()
        raise
    connection.close()
    summoner.reap(10)


def family() -> None:
    """Look at processes."""
    processes()
    children_of_mine()
    marked("nobody")
    found = process(os.getpid())
    assert found is not None
    send(found, 0)


OPERATIONS: dict[str, tuple[Callable[[], object], tuple[type[BaseException], ...]]] = {
    "start": (start, (NotStartedError,)),
    "start with input": (lambda: start(input="x"), (NotStartedError,)),
    "start by fork": (lambda: start(umask=0o77, input="x"), (NotStartedError,)),
    "capping": (capping, ()),
    "family": (family, (OSError,)),
    "groups": (lambda: Groups("0").members("r"), (OSError,)),
    "summon": (summon, (StartError,)),
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
    leaks, odd = [], []
    for at in sorted({*range(1, 20), *range(20, calls - 20, 1 + calls // 20), *range(calls - 20, calls + 1)}):
        if not 0 < at <= calls:
            continue
        gc.collect()
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
    print(json.dumps(sweep(*OPERATIONS[sys.argv[2]])))
