"""`schedulerctl db`: operations on the history itself, without a daemon."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from urllib.parse import parse_qs, urlsplit

from ..backups.sqlite import SOURCE_TYPE
from ..config.defaults import DEFAULT_SCHEMA
from ..config.loader import load
from ..core.clock import SystemClock
from ..core.errors import SchedulerdError
from ..core.models import Secret
from ..core.units import counted
from ..host.files import fsync_folder
from ..host.locks import check_name, lock_file
from ..host.trust import trusted, why_replaceable
from ..secrets.urls import mask_userinfo
from ..store import admin
from ..store.copy import CopyResult, copy
from ..store.factory import SQLITE, is_sqlite, path_of, store_at
from ..store.outage_journal import OutageJournal
from ..store.status import StoreStatus
from .arguments import HISTORY_URL, Options
from .output import REFUSED, field_rows, print_notes, print_result

PROGRESS_ROWS = 100_000  # between two progress messages of a copy


@dataclass(frozen=True)
class HistoryLocation:
    """Where a history is stored, and the state directory of its daemon."""

    url: str | Secret
    schema: str
    state_dir: str | None = None

    @property
    def text(self) -> str:
        """Return the URL without secrets."""
        return str(self.url) if isinstance(self.url, Secret) else mask_userinfo(self.url)


class DatabaseError(SchedulerdError):
    """An operation on a history is not safe or not possible."""


def _status(options: Options) -> int:
    history = _history(options.place, options)
    status = admin.status_of(history.url, history.schema, SystemClock())
    value = {
        "store": history.text, "schema": history.schema, **asdict(status), "users": list(status.users),
        "is_up_to_date": status.is_up_to_date,
    }  # fmt: skip
    shown = {name: each for name, each in value.items() if name != "schema" or not is_sqlite(history.url)}
    print_result(options, value, ("FIELD", "VALUE"), field_rows(shown))
    if not status.is_up_to_date:
        print_notes(options, [_advice(status)])
    return 0 if status.is_up_to_date else REFUSED


def _advice(status: StoreStatus) -> str:
    if status.version > status.newest:
        return "it was written by a newer schedulerd: upgrade"
    return "it is not up to date: stop the daemon and run schedulerctl db migrate (the daemon does the same when it starts)"


def _migrate(options: Options) -> int:
    history, clock = _history(options.place, options), SystemClock()
    with _exclusive(history):
        before = admin.status_of(history.url, history.schema, clock).version
        admin.migrate(history.url, history.schema, clock)
        after = admin.status_of(history.url, history.schema, clock).version
    result = f"from version {before} to {after}" if before != after else f"it already has version {after}"
    value = {"store": history.text, "before": before, "after": after}
    return print_result(options, value, ("STORE", "MIGRATED"), [(history.text, result)])


def _release(options: Options) -> int:
    history = _history(options.place, options)
    with _exclusive(history):
        owner = admin.release(history.url, history.schema, SystemClock())
    value = {"store": history.text, "schema": history.schema, "released": owner}
    return print_result(options, value, ("STORE", "FORMER OWNER"), [(history.text, owner or "-")])


def _backup(options: Options) -> int:
    history = _history(options.place, options)
    if not is_sqlite(history.url):
        raise DatabaseError(
            "a PostgreSQL history is backed up with the tools of PostgreSQL:"
            f" pg_dump --format=custom --schema={history.schema} --file=FILE URL, or by a job backup: {{source: history}}"
        )
    admin.status_of(history.url, history.schema, SystemClock())  # raises an error for a file that is no history
    target = os.path.abspath(options.file)
    with _partial_file(target) as partial:
        order = {"url": history.url, "source": "history"}
        SOURCE_TYPE.copy(order, partial)
        SOURCE_TYPE.check(order, partial)
        with open(partial, "rb") as file:
            os.fchmod(file.fileno(), 0o600)
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        os.link(partial, target)  # unlike rename(2), link(2) replaces no file
    fsync_folder(os.path.dirname(target))
    return print_result(options, {"file": target, "size_bytes": size}, ("FILE", "BYTES"), [(target, str(size))])


@contextmanager
def _partial_file(target: str) -> Iterator[str]:
    """Lend the path of a file in a private folder beside the target, and remove the folder afterwards. Raise DatabaseError.

    A folder in which other users can replace files is refused: they could redirect the copy.
    """
    folder = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{os.getpid()}.partial")
    try:
        if why := why_replaceable(target, trusted()):
            raise DatabaseError(f"{target}: {why}")
        if os.path.lexists(target):
            raise FileExistsError(0, "the file exists already", target)
        os.mkdir(folder, 0o700)
        try:
            yield os.path.join(folder, "copy")
        finally:
            shutil.rmtree(folder)
    except OSError as error:
        raise DatabaseError(f"{target}: {error.strerror}") from error


def _copy(options: Options) -> int:
    clock = SystemClock()
    source, target = _history(options.place, options), _history(options.target, options)
    with _exclusive(source), _exclusive(target):
        status = admin.status_of(source.url, source.schema, clock)
        if not status.is_up_to_date:
            raise DatabaseError(f"{source.text}: {_advice(status)}")
        with (
            closing(store_at(source.url, source.schema, clock, opens=False)) as old,
            closing(store_at(target.url, target.schema, clock)) as new,
        ):
            copied = copy(old, new, _progress_printer(sum(status.runs.values())))
    return _print_copied(copied, options)


def _progress_printer(total: int) -> Callable[[CopyResult], None]:
    printed = 0

    def on_progress(copied: CopyResult) -> None:
        nonlocal printed
        if copied.rows - printed >= PROGRESS_ROWS:
            printed = copied.rows
            print(f"{copied.rows} of {total} rows", file=sys.stderr, flush=True)

    return on_progress


def _print_copied(copied: CopyResult, options: Options) -> int:
    statuses = sorted({*copied.before, *copied.after})
    rows = [(name, str(copied.before.get(name, 0)), str(copied.after.get(name, 0))) for name in statuses]
    print_result(options, {**asdict(copied), "is_whole": copied.is_whole}, ("STATUS", "SOURCE", "TARGET"), rows)
    notes = [f"{counted(copied.entered, 'row')} of {copied.rows} inserted, {copied.finished} updated"]
    if copied.refused:
        runs = ", ".join(copied.refused[:5])
        notes.append(f"{counted(len(copied.refused), 'row')} not inserted, the target has their occurrences already: {runs}")
    if not copied.is_whole:
        notes.append("source and target differ: did the target contain rows before?")
    print_notes(options, notes)
    return 0 if copied.is_whole else REFUSED


def _history(text: str | None, options: Options) -> HistoryLocation:
    """Return the history at a URL, or that of the configuration for None. Raise DatabaseError, ConfigError."""
    if text is None:
        config = load(options.config)
        return HistoryLocation(config.store, options.schema or config.store_schema, config.state_dir)
    schema = options.schema or DEFAULT_SCHEMA
    kind, _, name = text.partition(":")
    if kind in ("env", "file") and name:
        return HistoryLocation(Secret(kind, name), schema)
    if is_sqlite(text):
        path = os.path.abspath(text.removeprefix(SQLITE))  # links are not resolved: the state directory is beside the name
        return HistoryLocation(f"sqlite://{path}", schema, os.path.dirname(path))
    if not text.startswith(("postgresql://", "postgres://")):
        raise DatabaseError(f"{mask_userinfo(text)}: expected {HISTORY_URL}")
    if urlsplit(text).password or "password" in parse_qs(urlsplit(text).query):
        raise DatabaseError(
            "a password on the command line can be read by all users of this host: put the URL into a file and give"
            " file:PATH, or into a variable and give env:NAME"
        )
    return HistoryLocation(text, schema)


@contextmanager
def _exclusive(history: HistoryLocation) -> Iterator[None]:
    """Lock out daemons from a history. Raise SchedulerdError if one uses it, or has changes left to write to it."""
    path, locks = path_of(history.url), ExitStack()
    with locks:
        for lock, locked, name in _locks(path, history.state_dir):
            check_name(locked, name)
            if os.path.exists(lock):  # a lock file that does not exist is held by no daemon
                locks.callback(os.close, lock_file(lock, name))
        if path is None:
            users = admin.status_of(history.url, history.schema, SystemClock()).users
            if users:
                raise DatabaseError(
                    f"{history.text}: a daemon on {' and '.join(users)} uses the schema {history.schema}: stop it; if it is"
                    " stopped, wait until its connection pooler has closed its connections"
                )
        _check_journal(history)
        yield


def _locks(path: str | None, state_dir: str | None) -> Sequence[tuple[str, str, str]]:
    """Return each lock file of a daemon on a history, with the path that it locks and the name of that in messages."""
    locks = [(f"{path}.lock", path, f"the history {path}")] if path is not None else []
    if state_dir:
        locks.append((os.path.join(state_dir, "lock"), state_dir, f"the state directory {state_dir}"))
    return locks


def _check_journal(history: HistoryLocation) -> None:
    path = os.path.join(history.state_dir, "outage.journal") if history.state_dir else ""
    if not path or not os.path.exists(path):
        return
    with closing(OutageJournal(path, max(1, os.path.getsize(path)))) as journal:
        count = journal.backlog.changes
    if count:
        raise DatabaseError(
            f"{counted(count, 'change')} of an outage in {path} must be written to the history first: start the daemon, wait"
            " until it has written them, and stop it"
        )


VERBS: dict[str, Callable[[Options], int]] = {
    "status": _status, "migrate": _migrate, "release": _release, "backup": _backup, "copy": _copy,
}  # fmt: skip
