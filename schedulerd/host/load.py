"""The load of the host as the kernel reports it."""

from __future__ import annotations

import os
import re

from ..core.concurrency import HostLoad

MEMINFO = "/proc/meminfo"


def measure() -> HostLoad:
    """Return the current load of the host. Raise OSError when it cannot be read."""
    with open(MEMINFO, encoding="ascii") as file:
        found = re.search(r"^MemAvailable:\s+([0-9]+) kB", file.read(), re.MULTILINE)
    return HostLoad(os.getloadavg()[0], float(found[1]) * 1024 if found else 0.0)
