"""The settings of the action `health_check`."""

from __future__ import annotations

from enum import StrEnum

from .composites import ExactlyOne, ListOf, MapOf, OneOrMore, Option, Section
from .fields import Boolean, Duration, EnumOf, Integer, Text, TextOrSecret


class FailWhen(StrEnum):
    """The health at which the run of a health check fails."""

    NEVER = "never"
    UNHEALTHY = "unhealthy"
    DEGRADED = "degraded"


PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"  # 1 to 65535
TARGET_KINDS = ("postgresql", "redis", "storage", "http", "tcp")
TARGET_NAME = r"(?!(?:postgresql|redis|storage|backups|system)$)[A-Za-z_][A-Za-z0-9_-]{0,63}"
_POSTGRESQL = Option(
    TextOrSecret(), "A PostgreSQL database: the name of a source, or a postgresql:// URL.", example="main_db"
)
_REDIS = Option(TextOrSecret(), "A Redis server: the name of a source, or a redis:// or rediss:// URL.", example="cache")
TARGET = ExactlyOne(
    Section(
        {
            "postgresql": _POSTGRESQL,
            "redis": _REDIS,
            "storage": Option(Text(), "A folder that must be writable.", example="/srv/data"),
            "http": Option(
                TextOrSecret(), "An http:// or https:// URL that must respond.", example="https://shop.example/health"
            ),
            "tcp": Option(
                Text(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):" + PORT, "HOST:PORT with a port from 1 to 65535", is_secret=True),
                "HOST:PORT of a server that must accept a connection.",
                example='"mail.example:25"',
            ),
            "expect_status": Option(
                OneOrMore(Text(r"[1-5]([0-9]{2}|xx)", "a status such as 200 or 2xx")),
                "For http: the status codes of a healthy response.",
                ("2xx",),
                example="[200, 204]",
            ),
            "timeout": Option(
                Duration(), "The longest time of the probe (default: `probe_timeout`).", example="1s"
            ),
            "max_latency": Option(Duration(), "The response time above which the target is degraded.", example="500ms"),
            "max_lag": Option(
                Duration(), "For postgresql: the replication lag above which a replica is degraded.", example="30s"
            ),
            "max_connections_percent": Option(
                Integer(1, 100), "For postgresql: the share of connections in use above which it is degraded (default: 90).",
                example="80",
            ),
            "max_memory_percent": Option(
                Integer(1, 100), "For redis: the share of its maxmemory in use above which it is degraded (default: 90).",
                example="80",
            ),
            "min_free_percent": Option(
                Integer(0, 100),
                "For storage: the share of free space below which it is degraded (default: that of the health check).",
                example="10",
            ),
            "critical": Option(
                Boolean(), "false: when the target is unhealthy, health is only degraded.", True, example="false"
            ),
        }
    ),
    TARGET_KINDS,
)  # fmt: skip
HEALTH_CHECK = Section(
    {
        "postgresql": _POSTGRESQL,
        "redis": _REDIS,
        "storage": Option(
            ListOf(Text()), "Folders that must be writable (default: the state directory).", example="[/srv/data]"
        ),
        "targets": Option(
            MapOf(TARGET, TARGET_NAME, "a name of a target (postgresql, redis, storage, backups and system are reserved)"),
            "More targets, by name.",
            {},
            example='{mail: {tcp: "mail.example:25", critical: false}}',
        ),
        "min_free_percent": Option(
            Integer(0, 100), "The share of free space of a disk below which health is degraded.", 5, example="10"
        ),
        "probe_timeout": Option(Duration(), "The longest time of each probe.", 5.0, example="3s"),
        "fail_when": Option(
            EnumOf(FailWhen),
            "The health at which the run fails. never: it always succeeds. unhealthy: it fails when unhealthy. "
            "degraded: it fails when degraded or unhealthy.",
            FailWhen.NEVER,
            example="unhealthy",
        ),
    }
)  # fmt: skip
