"""The settings of the action `health_check`, for the table in `config/settings.py`."""

from __future__ import annotations

from enum import StrEnum

from .composites import ExactlyOne, ListOf, MapOf, OneOrMore, Option, Section
from .fields import Boolean, Duration, EnumOf, Integer, Text, TextOrSecret


class FailWhen(StrEnum):
    """At which result of a check its run is failed."""

    NEVER = "never"
    UNHEALTHY = "unhealthy"
    DEGRADED = "degraded"


PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"  # 1 to 65535
TARGET_KINDS = ("postgresql", "redis", "storage", "http", "tcp")
TARGET = ExactlyOne(
    Section(
        {
            "postgresql": Option(TextOrSecret(), "a PostgreSQL: the name of a source, or a postgresql:// URL"),
            "redis": Option(TextOrSecret(), "a Redis: the name of a source, or a redis:// or rediss:// URL"),
            "storage": Option(Text(), "a folder that must be writable"),
            "http": Option(TextOrSecret(), "an http:// or https:// URL that must answer"),
            "tcp": Option(
                Text(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):" + PORT, "HOST:PORT with a port from 1 to 65535", is_secret=True),
                "HOST:PORT that must take a connection",
            ),
            "expect_status": Option(
                OneOrMore(Text(r"[1-5]([0-9]{2}|xx)", "a status such as 200 or 2xx")),
                "of http: which answers are well",
                ("2xx",),
            ),
            "timeout": Option(Duration(), "how long it may take to answer (default: probe_timeout)"),
            "max_latency": Option(Duration(), "a slower answer is degraded"),
            "max_lag": Option(Duration(), "of postgresql: a replica further behind is degraded"),
            "max_connections_percent": Option(Integer(1, 100), "of postgresql: more in use is degraded (default: 90)"),
            "max_memory_percent": Option(
                Integer(1, 100), "of redis: more in use of its maxmemory is degraded (default: 90)"
            ),
            "min_free_percent": Option(Integer(0, 100), "of storage: less free is degraded (default: that of the check)"),
            "critical": Option(Boolean(), "false: when it is unhealthy, the whole is only degraded", True),
        }
    ),
    TARGET_KINDS,
)
TARGET_NAME = r"(?!(?:postgresql|redis|storage|backups|system)$)[A-Za-z_][A-Za-z0-9_-]{0,63}"
HEALTH_CHECK = Section(
    {
        "postgresql": Option(TextOrSecret(), "a PostgreSQL: the name of a source, or a postgresql:// URL"),
        "redis": Option(TextOrSecret(), "a Redis: the name of a source, or a redis:// or rediss:// URL"),
        "storage": Option(ListOf(Text()), "folders that must be writable (default: the state directory)"),
        "targets": Option(
            MapOf(TARGET, TARGET_NAME, "a name of a target (postgresql, redis, storage, backups and system are taken)"),
            "more targets, by name",
            {},
        ),
        "min_free_percent": Option(Integer(0, 100), "less free space than this is degraded", 5),
        "probe_timeout": Option(Duration(), "how long each probe may take", 5.0),
        "fail_when": Option(EnumOf(FailWhen), "at which result the run is failed", FailWhen.NEVER),
    }
)
