"""`schedulerctl db`: what is done with a history itself, without a daemon."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from urllib.parse import parse_qs, urlsplit

from ..backups.sqlite import KIND
from ..config.loader import DEFAULT_CONFIG, load
from ..config.settings import DEFAULT_SCHEMA, SCHEMA_PATTERN
from ..core.clock import SystemClock
from ..core.errors import SchedulerdError
from ..core.models import Secret
from ..core.units import counted
from ..host.files import fsync_folder
from ..host.locks import check_name, lock_file
from ..host.trust import trusted, why_replaceable
from ..secrets.urls import mask_userinfo
from ..store import admin
from ..store.copy import Copied, copy
from ..store.factory import SQLITE, is_sqlite, path_of, store_at
from ..store.outage_journal import Journal
from ..store.status import Standing
from .client import Client
from .output import REFUSED, Options, fields, remark, show

Add = Callable[..., argparse.ArgumentParser]
PLACE = "a sqlite:///PATH or postgresql:// URL; env:NAME or file:PATH for one with a password in it"
TELL_ROWS = 100_000  # between two words about a long copy


@dataclass(frozen=True)
class Place:
    """A history, and the state directory of its daemon."""

    url: str | Secret
    schema: str
    state_dir: str | None = None

    @property
    def text(self) -> str:
        """Return it as it may be shown."""
        return str(self.url) if isinstance(self.url, Secret) else mask_userinfo(self.url)


class DatabaseError(SchedulerdError):
    """What was asked of a history is not safe, or makes no sense; says what to do instead."""


def add_commands(add: Add) -> None:
    """Add the commands to the parser."""
    parser = add("db", _status, "the history itself, without a daemon: status, migrate, backup, copy, release")
    parser.set_defaults(
        command=lambda _client, _options: parser.error("one of status, migrate, backup, copy, release is needed")
    )
    verbs = parser.add_subparsers(metavar="VERB")

    def verb(name: str, command: Callable[[Client, Options], int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        sub.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help="whose store: is meant (%(default)s)")
        sub.add_argument("--schema", type=_schema, help=f"of a PostgreSQL (default: store_schema:, or {DEFAULT_SCHEMA})")
        return sub

    for name, command, text in (
        ("status", _status, "its version, size and rows; changes nothing"),
        ("migrate", _migrate, "bring it up to date; the daemon is stopped meanwhile"),
        (
            "release",
            _release,
            "of a PostgreSQL: let it belong to the next daemon that starts; its own one is stopped for good",
        ),
    ):
        verb(name, command, text).add_argument("place", nargs="?", metavar="URL", help=PLACE)
    backup = verb("backup", _backup, "a whole, checked copy of a SQLite history into a file; the daemon may run")
    backup.add_argument("file", metavar="FILE", help="the new file, mode 0600")
    backup.add_argument("place", nargs="?", metavar="URL", help=PLACE)
    copying = verb("copy", _copy, "copy all of it into another history; the daemon is stopped meanwhile; may be done again")
    copying.add_argument("target", metavar="TARGET", help=PLACE)
    copying.add_argument("place", nargs="?", metavar="SOURCE", help="the same (default: the store: of the configuration)")


def _status(_client: Client, options: Options) -> int:
    place = _place(options.place, options)
    found = admin.standing(place.url, place.schema, SystemClock())
    value = {
        "store": place.text, "schema": place.schema, **asdict(found), "users": list(found.users),
        "is_up_to_date": found.is_up_to_date,
    }  # fmt: skip
    shown = {name: each for name, each in value.items() if name != "schema" or not is_sqlite(place.url)}
    show(options, value, ("FIELD", "VALUE"), fields(shown))
    if not found.is_up_to_date:
        remark(options, [_advice(found)])
    return 0 if found.is_up_to_date else REFUSED


def _advice(found: Standing) -> str:
    if found.version > found.newest:
        return "it was written by a newer schedulerd: upgrade"
    return "it is not up to date: stop the daemon and run schedulerctl db migrate (its next start does the same)"


def _migrate(_client: Client, options: Options) -> int:
    place, clock = _place(options.place, options), SystemClock()
    with _alone(place):
        before = admin.standing(place.url, place.schema, clock).version
        admin.migrate(place.url, place.schema, clock)
        after = admin.standing(place.url, place.schema, clock).version
    done = f"from version {before} to {after}" if before != after else f"it was of version {after} already"
    value = {"store": place.text, "before": before, "after": after}
    return show(options, value, ("STORE", "MIGRATED"), [(place.text, done)])


def _release(_client: Client, options: Options) -> int:
    place = _place(options.place, options)
    with _alone(place):
        name = admin.release(place.url, place.schema, SystemClock())
    value = {"store": place.text, "schema": place.schema, "released": name}
    return show(options, value, ("STORE", "BELONGED TO"), [(place.text, name or "nobody")])


def _backup(_client: Client, options: Options) -> int:
    place = _place(options.place, options)
    if not is_sqlite(place.url):
        raise DatabaseError(
            f"a PostgreSQL is backed up by its own tools: pg_dump --format=custom --schema={place.schema} --file=FILE URL,"
            " or by a job backup: {source: history}"
        )
    admin.standing(place.url, place.schema, SystemClock())  # so that a file that is none is told, and not copied
    target = os.path.abspath(options.file)
    with _partial(target) as partial:
        order = {"url": place.url, "source": "history"}
        KIND.copy(order, partial)
        KIND.check(order, partial)
        with open(partial, "rb") as file:
            os.fchmod(file.fileno(), 0o600)
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        os.link(partial, target)  # unlike a rename, this replaces nothing
    fsync_folder(os.path.dirname(target))
    return show(options, {"file": target, "size_bytes": size}, ("FILE", "BYTES"), [(target, str(size))])


@contextmanager
def _partial(target: str) -> Iterator[str]:
    """Lend a path in a private folder beside the target, and leave nothing of it. Raise DatabaseError.

    In a folder of others the copy would go wherever they lead it, so none is made there.
    """
    folder = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{os.getpid()}.partial")
    try:
        if why := why_replaceable(target, trusted()):
            raise DatabaseError(f"{target}: {why}")
        if os.path.lexists(target):
            raise FileExistsError(0, "there is such a file already", target)
        os.mkdir(folder, 0o700)
        try:
            yield os.path.join(folder, "copy")
        finally:
            shutil.rmtree(folder)
    except OSError as error:
        raise DatabaseError(f"{target}: {error.strerror}") from error


def _copy(_client: Client, options: Options) -> int:
    clock = SystemClock()
    source, target = _place(options.place, options), _place(options.target, options)
    with _alone(source), _alone(target):
        found = admin.standing(source.url, source.schema, clock)
        if not found.is_up_to_date:
            raise DatabaseError(f"{source.text}: {_advice(found)}")
        with (
            closing(store_at(source.url, source.schema, clock, opens=False)) as old,
            closing(store_at(target.url, target.schema, clock)) as new,
        ):
            copied = copy(old, new, _teller(sum(found.runs.values())))
    return _told(copied, options)


def _teller(whole: int) -> Callable[[Copied], None]:
    told = 0

    def tell(copied: Copied) -> None:
        nonlocal told
        if copied.rows - told >= TELL_ROWS:
            told = copied.rows
            print(f"{copied.rows} of {whole} rows", file=sys.stderr, flush=True)

    return tell


def _told(copied: Copied, options: Options) -> int:
    statuses = sorted({*copied.before, *copied.after})
    rows = [(name, str(copied.before.get(name, 0)), str(copied.after.get(name, 0))) for name in statuses]
    show(options, {**asdict(copied), "is_whole": copied.is_whole}, ("STATUS", "SOURCE", "TARGET"), rows)
    notes = [f"{counted(copied.entered, 'row')} of {copied.rows} entered, {copied.finished} finished"]
    if copied.refused:
        shown = ", ".join(copied.refused[:5])
        notes.append(f"{counted(len(copied.refused), 'row')} not entered, whose occurrence the target has already: {shown}")
    if not copied.is_whole:
        notes.append("the target is not what the source is: did it have rows of its own?")
    remark(options, notes)
    return 0 if copied.is_whole else REFUSED


def _place(text: str | None, options: Options) -> Place:
    """Return the history that is meant. Raise DatabaseError, ConfigError."""
    if text is None:
        config = load(options.config)
        return Place(config.store, options.schema or config.store_schema, config.state_dir)
    schema = options.schema or DEFAULT_SCHEMA
    kind, _, name = text.partition(":")
    if kind in ("env", "file") and name:
        return Place(Secret(kind, name), schema)
    if is_sqlite(text):
        path = os.path.abspath(text.removeprefix(SQLITE))  # not where a link leads: the state directory is where it is named
        return Place(f"sqlite://{path}", schema, os.path.dirname(path))
    if not text.startswith(("postgresql://", "postgres://")):
        raise DatabaseError(f"{mask_userinfo(text)}: expected {PLACE}")
    if urlsplit(text).password or "password" in parse_qs(urlsplit(text).query):
        raise DatabaseError("a password among the arguments is seen by everybody on this host: put the URL into a file, and"
                            " name it file:PATH, or into a variable, env:NAME")  # fmt: skip
    return Place(text, schema)


def _schema(text: str) -> str:
    if not re.fullmatch(SCHEMA_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of lower case letters, digits and '_'")
    return text


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Keep daemons from a history for as long as this lasts. Raise SchedulerdError when one has it, or has more to write."""
    path, locks = path_of(place.url), ExitStack()
    with locks:
        for lock, held, what in _locks(path, place.state_dir):
            check_name(held, what)
            if os.path.exists(lock):  # one that is not there, nobody has; made here, it might not be the daemon's
                locks.callback(os.close, lock_file(lock, what))
        if path is None:
            users = admin.standing(place.url, place.schema, SystemClock()).users
            if users:
                raise DatabaseError(
                    f"{place.text}: a daemon on {' and '.join(users)} uses the schema {place.schema}: stop it, or, when it"
                    " is stopped, let its pooler close the connections that it keeps"
                )
        _check_journal(place)
        yield


def _locks(path: str | None, state_dir: str | None) -> Sequence[tuple[str, str, str]]:
    """Return each lock file that a daemon on a history has, with the path that it is the lock of, and that in words."""
    locks = [(f"{path}.lock", path, f"the history {path}")] if path is not None else []
    if state_dir:
        locks.append((os.path.join(state_dir, "lock"), state_dir, f"the state directory {state_dir}"))
    return locks


def _check_journal(place: Place) -> None:
    path = os.path.join(place.state_dir, "outage.journal") if place.state_dir else ""
    if not path or not os.path.exists(path):
        return
    with closing(Journal(path, max(1, os.path.getsize(path)))) as journal:
        count = journal.backlog.changes
    if count:
        raise DatabaseError(
            f"{counted(count, 'change')} of an outage wait in {path}, and are not in the history: start the daemon, let it"
            " write them, and stop it"
        )
