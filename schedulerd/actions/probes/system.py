"""Probe of the host: processor, load, memory, swap, disk, and time of boot."""

from __future__ import annotations

import os

from ...core.models import from_micros, to_text
from . import Answer, Cut

CPU_SAMPLE_SECONDS = 0.1


def probe(_cut: Cut) -> Answer:
    """Return the host's figures."""
    import psutil  # loaded here: it uses a few MB, which a daemon without health checks saves

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    load1, load5, load15 = os.getloadavg()
    root = psutil.disk_usage("/")
    return {
        "cpu_percent": psutil.cpu_percent(interval=CPU_SAMPLE_SECONDS),
        "cpu_count": os.cpu_count(),
        "load1": load1,
        "load5": load5,
        "load15": load15,
        "memory_percent": memory.percent,
        "memory_available_bytes": memory.available,
        "memory_total_bytes": memory.total,
        "swap_percent": swap.percent,
        "disk_percent": root.percent,
        "disk_free_bytes": root.free,
        "boot_time": to_text(from_micros(int(psutil.boot_time()) * 1_000_000)),
    }
