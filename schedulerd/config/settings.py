"""The table of every setting of the configuration file.

It feeds the loader (`config/loader.py`), the published JSON Schema (`schedulerd --print-schema`), and the tests that hold
documentation and program together. A new setting is a line here and the code that uses it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ..core.misfires import MOST_DUE
from ..core.models import CatchUp, Overlap, ParamType
from ..core.params import BIGGEST
from ..core.params import NAME as PARAM_NAME
from .composites import Either, ListOf, MapOf, OneOrMore, Option, Section
from .fields import (
    AddressRange,
    Anything,
    Boolean,
    Duration,
    EnumOf,
    Integer,
    IoPriority,
    Number,
    Size,
    Text,
    TextOrSecret,
    Umask,
)
from .settings_actions import ACTIONS
from .settings_triggers import MOVERS, TRIGGERS

JOB_ID = r"[a-z0-9][a-z0-9._-]{0,63}"
JOB_ID_EXPECTED = "a job id: lower case letters, digits, '.', '_' and '-', at most 64, a letter or digit first"
OWN_PREFIX = "SCHEDULERD_"  # of the variables that tell a process who it is, and by which its tree is known
ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"

SCHEMA_PATTERN = r"(?!pg_)[a-z_][a-z0-9_]{0,62}"
DEFAULT_SCHEMA = "schedulerd"
SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # of jobs that set none


class RoleName(StrEnum):
    """The roles as the file spells them."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


ENVIRONMENT = MapOf(
    TextOrSecret(), rf"(?!{OWN_PREFIX}(?!(LAST_SUCCESS_AT|FAULT)$)){ENV_NAME}",
    f"a name of an environment variable that a job may set ({OWN_PREFIX}… are ours, but for {OWN_PREFIX}LAST_SUCCESS_AT)",
)  # fmt: skip
PLAIN = {"type": ["string", "number", "boolean"]}
PARAM = Section(
    {
        "type": Option(EnumOf(ParamType), "what it is (default: text; choice, when there are choices)"),
        "default": Option(Anything(PLAIN), "what it is when nobody gives it; without it, it must be given"),
        "minimum": Option(Number(-BIGGEST, BIGGEST), "of an integer or number"),
        "maximum": Option(Number(-BIGGEST, BIGGEST), "of an integer or number"),
        "choices": Option(ListOf(Anything(PLAIN), at_least=1), "nothing else is taken"),
        "pattern": Option(
            Text(), "a regular expression without references and look-around for all of a text; else no '-' comes first"
        ),
        "max_length": Option(Integer(1, 100_000), "of a text, in characters (default: 1000)"),
        "multiline": Option(Boolean(), "true: a text may have several lines"),
    }
)
LIMITS = Section(
    {
        "open_files": Option(Integer(3), "descriptors of each process"),
        "file_size": Option(Size(), "the largest file that it may write"),
        "address_space": Option(Size(), "of each process"),
        "cpu_time": Option(Duration(), "processor time of each process, whole seconds"),
        "processes": Option(Integer(1), "processes of its user"),
        "core": Option(Size(), "of the file with the memory of a crashed process"),
        "stack": Option(Size(), "of each process"),
        "memory": Option(Size(), "of all processes of a run together (needs control groups)"),
        "cpus": Option(Number(0.01, 10_000), "processors that a run may use, such as 1.5 (needs control groups)"),
        "pids": Option(Integer(1), "processes and threads of a run (needs control groups)"),
    }
)


class Leftovers(StrEnum):
    """What becomes of processes that a run leaves behind."""

    KILL = "kill"
    KEEP = "keep"


class StopWord(StrEnum):
    """What becomes of running jobs when the daemon is stopped."""

    END = "end"
    LEAVE = "leave"


class IncludeErrors(StrEnum):
    """What a mistake in an included file costs: the whole configuration, or the jobs of that file."""

    REFUSE = "refuse"
    SKIP = "skip"


class RetryWord(StrEnum):
    """After which ends a run is tried again."""

    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"


class AbandonedWord(StrEnum):
    """What becomes of an occurrence whose run was abandoned."""

    RECORD = "record"
    RERUN = "rerun"


MOST_SEATS = 1_000_000
ONLY_IF = Section(
    {
        "load1_below": Option(Number(0.0, 1e6), "the host's load average of one minute is lower"),
        "free_memory_above": Option(Size(), "more memory than this is available, such as 500M"),
    }
)

RETRIES: Mapping[str, Option] = {
    "retries": Option(Integer(0, 1000), "how many further attempts there are when one went wrong", 0),
    "retry_delay": Option(Duration(), "the time from the end of the first attempt to the second", 10.0),
    "retry_backoff": Option(Number(1.0, 100.0), "how many times as long each further delay is", 2.0),
    "retry_max_delay": Option(Duration(), "no delay is longer", 3600.0),
    "retry_on": Option(
        ListOf(
            Either(str, EnumOf(RetryWord), Integer(0, 255)), at_least=1, expected="a list of failed, timed_out, … and codes"
        ),
        "after which ends: failed, timed_out, abandoned, and exit codes",
        (RetryWord.FAILED, RetryWord.TIMED_OUT),
    ),
    "on_abandoned": Option(
        EnumOf(AbandonedWord), "rerun: a run whose end was not seen is run again, so it may run twice", AbandonedWord.RECORD
    ),
    "deadline": Option(Duration(), "for all attempts together, from the start of the first; 0 is none", 0.0),
}

POLICY: Mapping[str, Option] = {
    "timezone": Option(Text(), "the IANA time zone of the job's times"),
    "timeout": Option(Duration(), "after this long the whole tree of processes gets SIGTERM; 0 is never", 0.0),
    "kill_grace": Option(Duration(), "how long after SIGTERM what is left of the tree gets SIGKILL", 10.0),
    "overlap": Option(EnumOf(Overlap), "what becomes of an occurrence that is due while the job runs", Overlap.SKIP),
    "max_instances": Option(
        Integer(1, 10_000), "with overlap allow or queue, how many runs of the job there may be at once"
    ),
    **RETRIES,
    "priority": Option(Integer(-100, 100), "of runs that wait for the same pool, the higher one starts first", 0),
    "only_if": Option(ONLY_IF, "what the host's load must be for a start; a run waits for that"),
    "only_if_within": Option(Duration(), "how long it waits for that; then it is skipped", 3600.0),
    "catch_up": Option(EnumOf(CatchUp), "what becomes of occurrences that nobody could start in time", CatchUp.LATEST),
    "catch_up_limit": Option(Integer(1, MOST_DUE), "with catch_up: all, how many of the newest are caught up", 100),
    "catch_up_age": Option(Duration(), "occurrences older than this are not started any more; 0 is no bound", 0.0),
    "catch_up_spacing": Option(Duration(), "with catch_up: all, the time between two starts", 1.0),
    "misfire_grace": Option(Duration(), "how late a start still counts as on schedule", 3600.0),
    **MOVERS,
    "cwd": Option(Text(), "the working directory (default: that of the daemon)"),
    "env": Option(ENVIRONMENT, "environment variables; a value may be a secret such as {file: /etc/key}", {}),
    "success_exit_codes": Option(
        ListOf(Integer(0, 255), at_least=1, expected="a list of exit codes"), "which exit codes are a success", (0,)
    ),
    "env_file": Option(
        OneOrMore(Text()), "files with KEY=VALUE lines, read at each start; with '-' before the path it may be missing", ()
    ),
    "allow_env": Option(
        OneOrMore(Text(ENV_NAME, "a name of an environment variable")),
        "what an env_file that the job's user may change can set although it decides what runs, such as PATH",
        (),
    ),
    "python_path": Option(OneOrMore(Text()), "where python: jobs find their modules", ()),
    "interpreter": Option(Text(), "the Python that runs python: jobs (default: the daemon's)"),
    "user": Option(Text(), "whom its process runs as; only when the daemon is root"),
    "group": Option(Text(), "the group of its process (default: the user's); only when the daemon is root"),
    "umask": Option(Umask(), "the umask of its process, such as 022"),
    "nice": Option(Integer(-20, 19), "the priority of its process, 19 is the lowest"),
    "ionice": Option(IoPriority(), "the disk priority of its process: idle, best-effort:0 to 7, realtime:0 to 7"),
    "limits": Option(LIMITS, "what its process may use", {}),
    "leftovers": Option(EnumOf(Leftovers), "keep: what a run leaves running goes on after its end", Leftovers.KILL),
    "output_limit": Option(Size(), "of a longer output only head and tail are kept", 10 * 1024**2),
}

JOB: Mapping[str, Option] = {
    "name": Option(Text(), "a name for people (default: the job's id)"),
    "description": Option(Text(), "what it is for"),
    "enabled": Option(Boolean(), "false: it is listed and can be triggered, but never starts on its own", True),
    **TRIGGERS,
    "not_before": Option(Text(), "no occurrence is earlier, such as 2027-01-01T00:00:00"),
    "not_after": Option(Text(), "no occurrence is later"),
    "params": Option(MapOf(PARAM, PARAM_NAME, "a name of a parameter"), "what can be given when it is triggered", {}),
    **ACTIONS,
    "pool": Option(Text(NAME, "a name of a pool"), "the pool of which a run takes one seat"),
    "uses": Option(MapOf(Integer(1, MOST_SEATS), NAME, "a name of a pool"), "pools, and how many seats of each a run takes"),
    "mutex": Option(
        Either(list, ListOf(Text(NAME, "a name")), Text(NAME, "a name")),
        "a name, or a list of names: of all jobs with the same one, one runs at a time",
    ),
    **POLICY,
}

PEER = Section(
    {
        "user": Option(Text(), "a user's name or number"),
        "group": Option(Text(), "a group's name or number"),
        "role": Option(EnumOf(RoleName), "what they may do", required=True),
    }
)

API: Mapping[str, Option] = {
    "socket": Option(Text(), "the Unix socket (default: schedulerd.sock in the state directory)"),
    "socket_group": Option(Text(), "the group whose members are operators on the socket", "schedulerd"),
    "peers": Option(ListOf(PEER), "more users and groups on the socket, and their roles", ()),
    "listen": Option(Text(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):[0-9]{1,5}", "HOST:PORT"), "HOST:PORT for REST with tokens"),
    "allow_plain_remote": Option(
        Boolean(), "true: listen on an address other than loopback although there is no TLS", False
    ),
    "hosts": Option(ListOf(Text()), "names that a Host header may have, besides loopback and the address of listen", ()),
    "trusted_proxy": Option(
        OneOrMore(AddressRange()), "proxies whose X-Forwarded-For says for whose limits a request counts", ()
    ),
}

TOP: Mapping[str, Option] = {
    "timezone": Option(Text(), "the IANA time zone of jobs that name none", "UTC"),
    "state_dir": Option(Text(), "where history, output, tokens and the socket are", "/var/lib/schedulerd"),
    "store": Option(
        TextOrSecret(),
        "the history: sqlite:///PATH (default: history.db in state_dir) or a postgresql:// URL (only that as a secret)",
    ),
    "store_schema": Option(
        Text(SCHEMA_PATTERN, "a name of lower case letters, digits and '_', not beginning with pg_"),
        "the schema of a PostgreSQL that the history is in",
        DEFAULT_SCHEMA,
    ),
    "outage_journal": Option(
        Size(), "the size of the file that takes what happens while the history is away; 0: there is none", 64 * 1024**2
    ),
    "include": Option(ListOf(Text()), "more files with jobs, as globs beside this file", ()),
    "include_errors": Option(
        EnumOf(IncludeErrors),
        "a mistake in an included file refuses all, or (skip) only that file's jobs",
        IncludeErrors.REFUSE,
    ),
    "calendars": Option(
        MapOf(Text(), NAME, "a name of a calendar"),
        "calendars for blackout by name: files, YAML with dates or iCalendar (.ics)",
        {},
    ),
    "catch_up_spread": Option(
        Duration(), "over how long many jobs are spread that are caught up at the same time; 0 starts all at once", 60.0
    ),
    "seats": Option(Integer(1, 256), "how many built-in jobs may run at the same time", 8),
    "on_stop": Option(
        EnumOf(StopWord),
        "what SIGTERM does to running jobs: end them (after shutdown_grace) or leave them",
        StopWord.END,
    ),
    "pools": Option(
        MapOf(
            Either(
                Mapping,
                Section({"limit": Option(Integer(1, MOST_SEATS), "how many seats", required=True)}),
                Integer(1, MOST_SEATS),
            ),
            NAME,
            "a name of a pool",
        ),
        "pools by name, and how many seats each has: {db: 4, net: {limit: 10}}",
        {},
    ),
    "shutdown_grace": Option(Duration(), "how long SIGTERM waits for running jobs before it ends them", 30.0),
    "sources": Option(
        MapOf(TextOrSecret(), NAME, "a name of a source"),
        "databases by name: postgresql://, redis://, rediss:// or sqlite:/// URLs",
        {},
    ),
    "api": Option(Section(API), "the doors: Unix socket and TCP", None),
    "defaults": Option(Section(POLICY), "what jobs have that they don't set themselves", None),
    "jobs": Option(MapOf(Section(JOB), JOB_ID, JOB_ID_EXPECTED), "the jobs by id", {}),
}
INCLUDED = ("defaults", "jobs")  # the sections that an included file may have


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file, for editors."""
    job = Section(JOB).schema()
    job["allOf"] = [_exactly_one(list(ACTIONS)), _at_most_one(list(TRIGGERS)), _FINISH_WITH_EVERY]
    schema = Section(TOP).schema()
    schema["properties"]["jobs"]["additionalProperties"] = job
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "schedulerd configuration",
        **schema,
    }


def _exactly_one(names: list[str]) -> dict[str, Any]:
    return {"oneOf": [{"required": [name]} for name in names]}


def _at_most_one(names: list[str]) -> dict[str, Any]:
    pairs = [list(pair) for pair in itertools.combinations(names, 2) if set(pair) != {"every", "after"}]
    return {"not": {"anyOf": [{"required": pair} for pair in pairs]}}


_FINISH_WITH_EVERY = {
    "if": {"required": ["every", "after"]},
    "then": {"properties": {"after": {"const": "finish"}}},
    "else": {"properties": {"after": {"type": "object"}}},
}
