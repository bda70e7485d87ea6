"""Which daemon a history in PostgreSQL belongs to: one, for a second one would take the first one's runs for lost.

A history in a file needs no such note: its lock is the daemon's for as long as it lives, and falls with the machine.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from contextlib import suppress
from dataclasses import dataclass

from ..errors import StoreError

MACHINE_ID = "/etc/machine-id"


@dataclass(frozen=True, slots=True)
class Owner:
    """A daemon: `daemon` stays the same over its restarts, its host's new names and new program versions."""

    daemon: str
    name: str


class OwnedError(StoreError):
    """The history belongs to another daemon, which an operator has to decide about (EX_CONFIG)."""

    exit_status = 78


def owner_at(state_dir: str) -> Owner:
    """Return who the daemon with a state directory of this host is.

    The machine's own id is hashed, as machine-id(5) asks; a machine that has none is known by its host name.
    """
    machine, path = socket.gethostname(), os.path.realpath(state_dir)
    name = f"{machine}:{path}"
    with suppress(OSError), open(MACHINE_ID, "rb") as file:
        machine = file.read().strip().decode("ascii", "replace") or machine
    return Owner(hmac.new(machine.encode(), f"schedulerd {path}".encode(), hashlib.sha256).hexdigest()[:32], name)
