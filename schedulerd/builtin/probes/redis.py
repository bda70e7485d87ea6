"""Redis: PING, and what INFO says of its role, memory and persistence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...backups.tunnel import context_of
from ...backups.urls import redis as parts_of
from . import Answer, Cut, above, graded

NAMES = {
    "version": "redis_version", "role": "role", "used_memory_bytes": "used_memory", "max_memory_bytes": "maxmemory",
    "connected_clients": "connected_clients", "loading": "loading", "rdb_last_save_status": "rdb_last_bgsave_status",
    "aof_enabled": "aof_enabled", "aof_last_write_status": "aof_last_write_status", "master_link": "master_link_status",
}  # fmt: skip


def probe(url: str, timeout: float, limits: Mapping[str, Any], _before: Answer, _cut: Cut) -> Answer:
    """Return the server's figures. Raise whatever the driver raises."""
    import redis  # optional: only hosts that watch a Redis need it

    client = redis.Redis.from_url(url, socket_timeout=timeout, **_checks(url))  # for connecting, too
    try:
        client.ping()
        info = client.info()
    finally:
        client.close()
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


def _checks(url: str) -> dict[str, bool]:
    """Return what redis-py is to check beyond its defaults: before 6.0 it takes a certificate for whatever name."""
    tls = parts_of(url).tls
    if tls is None:
        return {}
    context_of(tls)  # names a file that is not there; redis-py does not
    return {"ssl_check_hostname": tls.checks_host}
