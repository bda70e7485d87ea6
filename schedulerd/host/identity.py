"""Who a daemon is, to those that share a place with it: a PostgreSQL, or a folder of backups."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from dataclasses import dataclass

from .descriptors import raise_shortage

MACHINE_ID = "/etc/machine-id"


@dataclass(frozen=True, slots=True)
class Owner:
    """A daemon: `daemon` stays the same over its restarts, its host's new names and new program versions."""

    daemon: str
    name: str


def owner_at(state_dir: str) -> Owner:
    """Return who the daemon with a state directory of this host is.

    The machine's own id is hashed, as machine-id(5) asks; a machine that has none is known by its host name.
    """
    machine, path = socket.gethostname(), os.path.realpath(state_dir)
    name = f"{machine}:{path}"
    try:
        with open(MACHINE_ID, "rb") as file:
            machine = file.read().strip().decode("ascii", "replace") or machine
    except OSError as error:
        raise_shortage(error)  # it would be another daemon, whose history this is not
    return Owner(hmac.new(machine.encode(), f"schedulerd {path}".encode(), hashlib.sha256).hexdigest()[:32], name)
