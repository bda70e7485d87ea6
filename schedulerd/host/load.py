"""How busy the host is, as the kernel tells it."""

from __future__ import annotations

import os
import re

from ..core.concurrency import HostLoad

MEMINFO = "/proc/meminfo"


def measure() -> HostLoad:
    """Return the host's load now. Raise OSError when the kernel does not tell it."""
    with open(MEMINFO, encoding="ascii") as file:
        found = re.search(r"^MemAvailable:\s+([0-9]+) kB", file.read(), re.MULTILINE)
    return HostLoad(os.getloadavg()[0], float(found[1]) * 1024 if found else 0.0)
