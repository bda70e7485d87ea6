"""The settings at the top level of the configuration file, and those of the API.

The loader, the JSON Schema (`schedulerd --print-schema`), the man page and the documentation are made from this table and
from those of jobs, triggers and actions. To add a setting, add an entry and the code that uses the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from .composites import Either, ListOf, MapOf, OneOrMore, Option, Section
from .defaults import DEFAULT_SCHEMA, SCHEMA_PATTERN
from .fields import AddressRange, Boolean, Duration, EnumOf, Integer, Size, Text, TextOrSecret
from .settings_jobs import JOB, JOB_ID, JOB_ID_EXPECTED, MOST_SLOTS, NAME, POLICY


class RoleName(StrEnum):
    """The roles as the file names them."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class OnStop(StrEnum):
    """What happens to running jobs when the daemon is stopped."""

    END = "end"
    LEAVE = "leave"


class IncludeErrors(StrEnum):
    """What a mistake in an included file prevents: the whole configuration, or the jobs of that file."""

    REFUSE = "refuse"
    SKIP = "skip"


PEER = Section(
    {
        "user": Option(Text(), "The name or the number of a user.", example="nagios"),
        "group": Option(Text(), "The name or the number of a group.", example="monitoring"),
        "role": Option(EnumOf(RoleName), "The role of the user or of the members of the group.", required=True,
                       example="viewer"),
    }
)  # fmt: skip

API: Mapping[str, Option] = {
    "socket": Option(
        Text(), "The path of the Unix socket (default: schedulerd.sock in `state_dir`).",
        example="/run/schedulerd/schedulerd.sock",
    ),
    "socket_group": Option(
        Text(), "The group whose members have the role operator on the Unix socket.", "schedulerd", example="ops"
    ),
    "peers": Option(
        ListOf(PEER), "Users and groups with a role on the Unix socket. A user entry takes precedence over group entries.",
        (),
        example="[{user: nagios, role: viewer}]",
    ),
    "listen": Option(
        Text(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):[0-9]{1,5}", "HOST:PORT"),
        "The TCP address for REST requests with a token (default: none, only the Unix socket listens).",
        example="127.0.0.1:8765",
    ),
    "allow_plain_remote": Option(
        Boolean(), "true: `listen` may be an address other than loopback. The connection is not encrypted.", False,
        example="true",
    ),
    "hosts": Option(
        ListOf(Text()), "Names that are accepted in the Host header, besides loopback and the address of `listen`.", (),
        example="[scheduler.example]",
    ),
    "trusted_proxy": Option(
        OneOrMore(AddressRange()),
        "Proxies whose X-Forwarded-For header names the client to which the limits of a request apply.",
        (),
        example="10.0.0.7",
    ),
}  # fmt: skip

TOP: Mapping[str, Option] = {
    "timezone": Option(Text(), "The IANA time zone of jobs that set none.", "UTC", example="Europe/Rome"),
    "state_dir": Option(
        Text(), "The directory of the history, the outputs, the tokens and the Unix socket.", "/var/lib/schedulerd",
        example="/srv/schedulerd",
    ),
    "store": Option(
        TextOrSecret(),
        "The database of the history: sqlite:///PATH (default: history.db in `state_dir`) or a postgresql:// URL. "
        "A secret must contain a postgresql:// URL.",
        example="{credential: history_url}",
    ),
    "store_schema": Option(
        Text(SCHEMA_PATTERN, "a name of lower case letters, digits and '_', not beginning with pg_"),
        "The schema of the history in a PostgreSQL database.",
        DEFAULT_SCHEMA,
        example="jobs",
    ),
    "outage_journal": Option(
        Size(),
        "The size of the file in which changes wait during an outage of the store. It is reserved at startup. "
        "0 disables the file.",
        64 * 1024**2,
        example="256M",
    ),
    "include": Option(
        ListOf(Text()), "More files with jobs, as paths or globs relative to this file.", (), example="[jobs.d/*.yaml]"
    ),
    "include_errors": Option(
        EnumOf(IncludeErrors),
        "What a mistake in an included file prevents. refuse: the whole configuration. skip: the jobs of that file.",
        IncludeErrors.REFUSE,
        example="skip",
    ),
    "calendars": Option(
        MapOf(Text(), NAME, "a name of a calendar"),
        "Calendars for `blackout`, by name: the path of an iCalendar file (.ics) or of a YAML file with dates.",
        {},
        example="{holidays: holidays.ics}",
    ),
    "catch_up_spread": Option(
        Duration(), "The time over which the starts of caught-up jobs are distributed. 0 starts all of them at once.", 60.0,
        example="5m",
    ),
    "seats": Option(
        Integer(1, 256), "How many built-in actions (`health_check`, `analytics`, `cleanup`) may run at the same time.", 8,
        example="4",
    ),
    "on_stop": Option(
        EnumOf(OnStop),
        "What happens to running jobs when the daemon receives SIGTERM. end: they are ended after `shutdown_grace`. "
        "leave: they continue, and the next daemon supervises them.",
        OnStop.END,
        example="leave",
    ),
    "pools": Option(
        MapOf(
            Either(
                Mapping,
                Section({"limit": Option(Integer(1, MOST_SLOTS), "The number of slots.", required=True, example="10")}),
                Integer(1, MOST_SLOTS),
            ),
            NAME,
            "a name of a pool",
        ),
        "Pools by name, and the number of slots of each.",
        {},
        example="{db: 4, net: {limit: 10}}",
    ),
    "shutdown_grace": Option(
        Duration(), "How long the daemon waits for running jobs after SIGTERM before it ends them.", 30.0, example="2m"
    ),
    "sources": Option(
        MapOf(TextOrSecret(), NAME, "a name of a source"),
        "Databases by name: postgresql://, redis://, rediss://, unix:// or sqlite:/// URLs. A value may be a secret.",
        {},
        example="{main_db: {env: MAIN_DB_URL}}",
    ),
    "api": Option(
        Section(API), "The Unix socket and the TCP address on which the daemon accepts requests.", None,
        example='{listen: "127.0.0.1:8765"}',
    ),
    "defaults": Option(
        Section(POLICY), "Settings of all jobs that do not set them themselves.", None, example="{timeout: 1h}"
    ),
    "jobs": Option(
        MapOf(Section(JOB), JOB_ID, JOB_ID_EXPECTED), "The jobs by job id.", {}, example='{hello: {shell: "echo hello"}}'
    ),
}  # fmt: skip
INCLUDED = ("defaults", "jobs")  # the settings that an included file may have
