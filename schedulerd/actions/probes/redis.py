"""Probe of a Redis server: PING, and the figures of INFO on role, memory and persistence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...backups.urls import redis as server_of
from . import Answer, Cut, above, graded
from .redis_protocol import Talk

NAMES = {
    "version": "redis_version", "role": "role", "used_memory_bytes": "used_memory", "max_memory_bytes": "maxmemory",
    "connected_clients": "connected_clients", "loading": "loading", "rdb_last_save_status": "rdb_last_bgsave_status",
    "aof_enabled": "aof_enabled", "aof_last_write_status": "aof_last_write_status", "master_link": "master_link_status",
}  # fmt: skip


def probe(url: str, timeout: float, limits: Mapping[str, Any], _before: Answer, cut: Cut) -> Answer:
    """Return the server's figures. Raise any exception that prevents the query, such as OSError."""
    with Talk(server_of(url), timeout, cut) as talk:
        talk.ask("PING")
        info = _read(talk.ask("INFO"))
    answer = {name: info[key] for name, key in NAMES.items() if key in info}
    most = answer.get("max_memory_bytes")
    used = round(100 * answer["used_memory_bytes"] / most, 1) if most else None
    return graded(
        {**answer, "memory_percent": used},
        above("use of memory", used, limits.get("max_memory_percent"), " %"),
        "it loads its data" if answer.get("loading") else None,
        "the last save failed" if answer.get("rdb_last_save_status", "ok") != "ok" else None,
        "the last write of its log failed" if answer.get("aof_last_write_status", "ok") != "ok" else None,
        "it has lost its master" if answer.get("master_link", "up") != "up" else None,
    )


def _read(info: str) -> dict[str, Any]:
    """Return the fields of INFO by name, integers as int. Pure."""
    pairs = (line.partition(":") for line in info.splitlines() if ":" in line)
    return {name: int(value) if value.isascii() and value.isdecimal() else value for name, _, value in pairs}
