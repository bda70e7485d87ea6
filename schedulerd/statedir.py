"""The state directory: made, checked and locked, with the outage journal in it."""

from __future__ import annotations

import logging
import os

from .clock import Clock
from .config import Config
from .errors import SchedulerdError, UnsafeError
from .locks import PathLock
from .store.journal import Journal, NoRoomError
from .store.opening import path_of
from .store.spool import Spool

log = logging.getLogger(__name__)


def spool_of(config: Config, clock: Clock) -> Spool | None:
    """Return what takes the changes of an outage; None when there is no room for it. Raise StoreError."""
    if not config.outage_journal_bytes:
        return None
    path = os.path.join(config.state_dir, "outage.journal")
    try:
        journal = Journal(path, config.outage_journal_bytes)
        if journal.size < config.outage_journal_bytes:
            log.warning("the disk has room for an outage journal of only %d bytes: %s", journal.size, path)
        return Spool(journal, clock)
    except NoRoomError as error:
        log.error("%s: while the history is away, nothing will be started", error)
        return None


def lock(config: Config) -> list[PathLock]:
    """Make the state directory; return the locks on it, the socket and the history, against a second daemon.

    Raise SchedulerdError, or UnsafeError when others could write there.
    """
    database = path_of(config.store)
    try:
        os.makedirs(config.state_dir, 0o700, exist_ok=True)
        os.makedirs(os.path.dirname(config.api.socket), 0o755, exist_ok=True)
        found = os.stat(config.state_dir)
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise UnsafeError(
                f"state_dir {config.state_dir} (owner uid {found.st_uid}, mode {found.st_mode & 0o7777:o}) must belong "
                "to the daemon's user and be writable by nobody else: chown and chmod go-w it"
            )
        lock_file, socket_path = os.path.join(config.state_dir, "lock"), config.api.socket
        locks = [PathLock(config.state_dir, lock_file, f"the state directory {config.state_dir}", is_folder=True)]
        locks.append(PathLock(socket_path, socket_path + ".lock", f"the socket {socket_path}"))
        if database is not None:
            locks.append(PathLock(database, database + ".lock", f"the history {database}"))
        return locks
    except OSError as error:
        why = "is there and is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise SchedulerdError(f"{error.filename}: {why}: the daemon needs it (state_dir, api.socket)") from error
