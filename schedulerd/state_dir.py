"""The state directory: creates, checks and locks it, renames obstructing files, and opens the outage journal."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator

from .api.tokens import ADMIN_TOKEN_FILE
from .config.config import Config
from .config.last_good import FOLDER, NAME
from .core.clock import Clock
from .core.errors import SchedulerdError, UnsafeError
from .host.files import free_name, make_folders
from .host.locks import PathLock
from .host.trust import trusted, why_replaceable, why_untrusted
from .store.factory import path_of
from .store.outage_journal import NoRoomError, OutageJournal
from .store.outage_spool import OutageSpool

log = logging.getLogger(__name__)

FOLDERS = ("keeper", "output", FOLDER)
FILES = ("keeper/lock", "outage.journal", "keepsakes.json", ADMIN_TOKEN_FILE, f"{FOLDER}/{NAME}")
FILES_OF_A_KEEPER = ("lock", "journal", "errors")
SOCKETS_OF_A_KEEPER = ("socket", "socket.new")


def spool_of(config: Config, clock: Clock) -> OutageSpool | None:
    """Return the spool for the changes of an outage; None if it is disabled or the disk has no room. Raise StoreError."""
    if not config.outage_journal_bytes:
        return None
    path = os.path.join(config.state_dir, "outage.journal")
    try:
        journal = OutageJournal(path, config.outage_journal_bytes)
        if journal.size < config.outage_journal_bytes:
            log.warning("the disk has room for an outage journal of only %d bytes: %s", journal.size, path)
        return OutageSpool(journal, clock)
    except NoRoomError as error:
        log.error("%s: while the history is away, nothing will be started", error)
        return None


def lock(config: Config, clock: Clock) -> list[PathLock]:
    """Create the state directory; return the locks on it, the socket and the history, which exclude a second daemon.

    Raise SchedulerdError, or UnsafeError if other users could write to these paths or replace them.
    """
    database = path_of(config.store)
    try:
        _make(config.state_dir, 0o700, "state_dir")
        _make(os.path.dirname(config.api.socket), 0o755, "api.socket")
        _check_place("state_dir", why_untrusted(config.state_dir, trusted(), owner=os.geteuid()))
        _check_place("api.socket", why_replaceable(config.api.socket, trusted()))
        if database is not None:
            _check_place("store", why_replaceable(database, trusted()))
        lock_file, socket_path = os.path.join(config.state_dir, "lock"), config.api.socket
        for path in (lock_file, socket_path + ".lock", *([database + ".lock"] if database is not None else [])):
            _clear_folder(path, clock)
        locks = [PathLock(config.state_dir, lock_file, f"the state directory {config.state_dir}", is_folder=True)]
        locks.append(PathLock(socket_path, socket_path + ".lock", f"the socket {socket_path}"))
        if database is not None:
            locks.append(PathLock(database, database + ".lock", f"the history {database}"))
        return locks
    except OSError as error:
        why = "is there and is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise SchedulerdError(f"{error.filename}: {why}: the daemon needs it (state_dir, api.socket)") from error


def refused_places(config: Config) -> list[str]:
    """Return why a daemon of this user would refuse the paths of its files, one line for each setting. Creates nothing."""
    wanted = {"state_dir": config.state_dir, "api.socket": config.api.socket, "store": path_of(config.store)}
    lines = []
    for name, path in wanted.items():
        is_folder = name == "state_dir" and path is not None and os.path.isdir(path)
        try:
            if path is None:  # the history is on a server
                continue
            why = why_untrusted(path, trusted(), owner=os.geteuid()) if is_folder else why_replaceable(path, trusted())
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
        if why is not None:
            lines.append(f"{name}: {why}")
    return lines


def _make(folder: str, mode: int, name: str) -> None:
    """Create a folder that a setting names. Raise OSError: FileExistsError if another kind of file exists at the path."""
    _check_place(name, make_folders(folder, mode, trusted()))
    if not os.path.isdir(folder):
        raise FileExistsError(errno.EEXIST, "", folder)


def _check_place(name: str, why: str | None) -> None:
    """Raise UnsafeError with the reason `why`, if there is one: other users could redirect the daemon to their files."""
    if why is not None:
        raise UnsafeError(f"{name}: {why}")


def _clear_folder(path: str, clock: Clock) -> None:
    """Rename a folder or symbolic link at the path of a lock file. Raise OSError.

    rename(2) with a trailing slash accepts only a folder: a lock file that another daemon creates at this moment is not
    renamed. This does not hold for a link, but the lock does not depend on the file alone (see host/locks.py).
    """
    if not os.path.isdir(path) and not os.path.islink(path):
        return
    aside = free_name(path, "aside", clock.now())
    os.rename(path if os.path.islink(path) else f"{path}/", aside)
    _log_moved(path, aside)


def clear_the_way(state_dir: str, clock: Clock) -> None:
    """Rename each path in the locked state directory that is of the wrong kind, such as a file in place of a folder."""
    for path, is_right in _needed(state_dir):
        try:
            found = os.lstat(path)
        except OSError:  # it does not exist, or its folder was a file that has been renamed
            continue
        if is_right(_followed(path, found) if is_right is stat.S_ISDIR else found.st_mode):
            continue
        aside = free_name(path, "aside", clock.now())
        try:
            os.rename(path, aside)
        except OSError as error:
            raise SchedulerdError(f"{path} is not what it should be, and cannot be renamed: {error.strerror}") from error
        _log_moved(path, aside)


def _needed(state_dir: str) -> Iterator[tuple[str, Callable[[int], bool]]]:
    """Yield each required path, after its folder, with a test of its mode: a folder, a regular file, or not a folder."""
    for name in FOLDERS:
        yield os.path.join(state_dir, name), stat.S_ISDIR
    for name in FILES:
        yield os.path.join(state_dir, name), stat.S_ISREG
        yield os.path.join(state_dir, f"{name}.new"), stat.S_ISREG
    keepers = os.path.join(state_dir, "keeper")
    for number in _numbers(keepers):
        folder = os.path.join(keepers, number)
        yield folder, stat.S_ISDIR
        for name in FILES_OF_A_KEEPER:
            yield os.path.join(folder, name), stat.S_ISREG
            yield os.path.join(folder, f"{name}.new"), stat.S_ISREG
        for name in SOCKETS_OF_A_KEEPER:
            yield os.path.join(folder, name), _is_no_folder


def _numbers(keepers: str) -> list[str]:
    try:
        return sorted(filter(str.isdigit, os.listdir(keepers)))
    except OSError:  # it has not been created yet
        return []


def _is_no_folder(mode: int) -> bool:
    return not stat.S_ISDIR(mode)


def _followed(path: str, found: os.stat_result) -> int:
    """Return the mode of the target of a link: the folder itself may be elsewhere."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return found.st_mode


def _log_moved(path: str, aside: str) -> None:
    log.error("%s was not what the daemon needs there: it is set aside as %s", path, aside)
