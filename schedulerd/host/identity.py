"""The identity of a daemon towards other daemons that use the same PostgreSQL server or folder of backups."""

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
    """A daemon. `daemon` stays the same across restarts, changes of the host name and new versions."""

    daemon: str
    name: str


def owner_at(state_dir: str) -> Owner:
    """Return the identity of the daemon with this state directory on this host.

    The machine id is hashed, as machine-id(5) requires. A host without one is identified by its host name.
    """
    machine, path = socket.gethostname(), os.path.realpath(state_dir)
    name = f"{machine}:{path}"
    try:
        with open(MACHINE_ID, "rb") as file:
            machine = file.read().strip().decode("ascii", "replace") or machine
    except OSError as error:
        raise_shortage(error)  # otherwise the daemon would not recognise its own history
    return Owner(hmac.new(machine.encode(), f"schedulerd {path}".encode(), hashlib.sha256).hexdigest()[:32], name)
