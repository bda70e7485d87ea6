"""The settings of a job, and those of them that are also valid in `defaults`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from ..core.misfires import MOST_DUE
from ..core.models import CatchUp, Overlap, ParamType
from ..core.params import BIGGEST
from ..core.params import NAME as PARAM_NAME
from .composites import Either, ListOf, MapOf, OneOrMore, Option, Section
from .fields import Anything, Boolean, Duration, EnumOf, Integer, IoPriority, Number, Size, Text, TextOrSecret, Umask
from .settings_actions import ACTIONS
from .settings_triggers import ADJUSTMENTS, TRIGGERS

JOB_ID = r"[a-z0-9][a-z0-9._-]{0,63}"
JOB_ID_EXPECTED = "a job id: lower case letters, digits, '.', '_' and '-', at most 64, a letter or digit first"
OWN_PREFIX = "SCHEDULERD_"  # of variables that identify a run; a process of a run is found by them
ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"
SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # PATH of a job that sets none
MOST_SLOTS = 1_000_000


class Leftovers(StrEnum):
    """What happens to processes that are alive after the main process of their run has ended."""

    KILL = "kill"
    KEEP = "keep"


class RetryOn(StrEnum):
    """The statuses after which a run is retried."""

    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"


class OnAbandoned(StrEnum):
    """What happens to an occurrence whose run was abandoned."""

    RECORD = "record"
    RERUN = "rerun"


ENVIRONMENT = MapOf(
    TextOrSecret(), rf"(?!{OWN_PREFIX}(?!(LAST_SUCCESS_AT|FAULT)$)){ENV_NAME}",
    f"a name of an environment variable that a job may set ({OWN_PREFIX}… is reserved, except {OWN_PREFIX}LAST_SUCCESS_AT)",
)  # fmt: skip
_SCALAR = {"type": ["string", "number", "boolean"]}
PARAM = Section(
    {
        "type": Option(
            EnumOf(ParamType), "The type of the value (default: choice when `choices` is set, text otherwise).",
            example="integer",
        ),
        "default": Option(
            Anything(_SCALAR), "The value when the caller gives none. Without a default, the caller must give one.",
            example="yesterday",
        ),
        "minimum": Option(Number(-BIGGEST, BIGGEST), "The smallest value of an integer or number.", example="1"),
        "maximum": Option(Number(-BIGGEST, BIGGEST), "The largest value of an integer or number.", example="100"),
        "choices": Option(
            ListOf(Anything(_SCALAR), at_least=1), "The only values that are accepted.", example="[full, incremental]"
        ),
        "pattern": Option(
            Text(),
            "A regular expression that must match all of a text. Back references and look-around are not supported. "
            "Without a pattern, a text must not begin with '-'.",
            example='"[a-z]{2,8}"',
        ),
        "max_length": Option(
            Integer(1, 100_000), "The largest length of a text, in characters (default: 1000).", example="40"
        ),
        "multiline": Option(Boolean(), "true: a text may have several lines.", example="true"),
    }
)  # fmt: skip
LIMITS = Section(
    {
        "open_files": Option(Integer(3), "Open file descriptors of each process.", example="1024"),
        "file_size": Option(Size(), "The largest size of a file that a process may write.", example="1G"),
        "address_space": Option(Size(), "The address space of each process.", example="2G"),
        "cpu_time": Option(Duration(), "Processor time of each process, in whole seconds.", example="10m"),
        "processes": Option(Integer(1), "Processes of the user of the job, on the whole host.", example="200"),
        "core": Option(Size(), "The largest size of a core file.", example="0"),
        "stack": Option(Size(), "The stack of each process.", example="8M"),
        "memory": Option(Size(), "Memory of all processes of a run together. Needs a delegated cgroup.", example="512M"),
        "cpus": Option(
            Number(0.01, 10_000), "Processors that a run may use. Needs a delegated cgroup.", example="1.5"
        ),
        "pids": Option(Integer(1), "Processes and threads of a run. Needs a delegated cgroup.", example="100"),
    }
)  # fmt: skip
ONLY_IF = Section(
    {
        "load1_below": Option(
            Number(0.0, 1e6), "The load average of the host over one minute must be below this number.", example="4"
        ),
        "free_memory_above": Option(Size(), "The available memory of the host must be above this size.", example="500M"),
    }
)

RETRIES: Mapping[str, Option] = {
    "retries": Option(Integer(0, 1000), "The number of further attempts after one that failed.", 0, example="3"),
    "retry_delay": Option(
        Duration(), "The time between the end of the first attempt and the second attempt.", 10.0, example="30s"
    ),
    "retry_backoff": Option(
        Number(1.0, 100.0), "The factor by which each further delay is longer than the one before.", 2.0, example="1.5"
    ),
    "retry_max_delay": Option(Duration(), "The longest delay between two attempts.", 3600.0, example="10m"),
    "retry_on": Option(
        ListOf(
            Either(str, EnumOf(RetryOn), Integer(0, 255)),
            at_least=1,
            expected="a list of failed, timed_out, abandoned and exit codes",
        ),
        "The statuses and exit codes after which a run is retried.",
        (RetryOn.FAILED, RetryOn.TIMED_OUT),
        example="[75, timed_out]",
    ),
    "on_abandoned": Option(
        EnumOf(OnAbandoned),
        "What happens to an abandoned run. record: nothing more. rerun: it is executed again at once, so the job may be "
        "executed twice.",
        OnAbandoned.RECORD,
        example="rerun",
    ),
    "deadline": Option(
        Duration(),
        "The time within which all attempts of an occurrence must end, counted from the first start. 0 sets no deadline.",
        0.0,
        example="2h",
    ),
}

POLICY: Mapping[str, Option] = {
    "timezone": Option(
        Text(), "The IANA time zone of the times of the job (default: the top-level `timezone`).", example="Europe/Rome"
    ),
    "timeout": Option(
        Duration(), "The longest time a run may take. After it, all its processes receive SIGTERM. 0 sets no limit.", 0.0,
        example="1h",
    ),
    "kill_grace": Option(
        Duration(), "The time between SIGTERM and SIGKILL when a run is ended.", 10.0, example="30s"
    ),
    "overlap": Option(
        EnumOf(Overlap),
        "What happens to an occurrence that is due while the job is running. skip: it is recorded as skipped. queue: it "
        "waits. replace: the running one is cancelled. allow: it starts beside the running one.",
        Overlap.SKIP,
        example="queue",
    ),
    "max_instances": Option(
        Integer(1, 10_000), "How many runs of the job may exist at the same time, with `overlap: allow` or `queue`.",
        example="4",
    ),
    **RETRIES,
    "priority": Option(
        Integer(-100, 100), "The order of queued runs that wait for the same pool: a higher priority starts first.", 0,
        example="10",
    ),
    "only_if": Option(
        ONLY_IF, "A load gate: conditions on the host. A run waits until all of them hold.", example="{load1_below: 4}"
    ),
    "only_if_within": Option(
        Duration(), "How long a run waits for `only_if`. After that it is recorded as skipped.", 3600.0, example="10m"
    ),
    "catch_up": Option(
        EnumOf(CatchUp),
        "Which misfires are started late. none: no misfire. latest: the newest one. all: each one, oldest first.",
        CatchUp.LATEST,
        example="all",
    ),
    "catch_up_limit": Option(
        Integer(1, MOST_DUE), "How many misfires are started with `catch_up: all`. The newest ones are.", 100, example="12"
    ),
    "catch_up_age": Option(
        Duration(), "Misfires that are older than this are not started. 0 sets no limit.", 0.0, example="7d"
    ),
    "catch_up_spacing": Option(
        Duration(), "The time between two starts with `catch_up: all`.", 1.0, example="1m"
    ),
    "misfire_grace": Option(
        Duration(), "How late an occurrence may start before it counts as a misfire.", 3600.0, example="15m"
    ),
    **ADJUSTMENTS,
    "cwd": Option(Text(), "The working directory of the process (default: that of the daemon).", example="/srv/report"),
    "env": Option(
        ENVIRONMENT, "Environment variables of the process. A value may be a secret.", {},
        example="{LANG: it_IT.UTF-8, API_KEY: {file: /etc/schedulerd/api.key}}",
    ),
    "success_exit_codes": Option(
        ListOf(Integer(0, 255), at_least=1, expected="a list of exit codes"), "The exit codes of a successful run.", (0,),
        example="[0, 3]",
    ),
    "env_file": Option(
        OneOrMore(Text()),
        "Files with KEY=VALUE lines, read before each start. A file with '-' before its path may be missing.",
        (),
        example="[/etc/shop.env, -/srv/shop/local.env]",
    ),
    "allow_env": Option(
        OneOrMore(Text(ENV_NAME, "a name of an environment variable")),
        "Variables that decide which program runs, such as PATH, and that an `env_file` may set although the user of the "
        "job can change that file.",
        (),
        example="[PYTHONPATH]",
    ),
    "python_path": Option(
        OneOrMore(Text()), "Folders from which `python` jobs import modules.", (), example="/srv/shop"
    ),
    "interpreter": Option(
        Text(), "The Python interpreter of `python` jobs (default: that of the daemon).",
        example="/srv/shop/.venv/bin/python",
    ),
    "user": Option(
        Text(), "The user as whom the process runs (default: that of the daemon). Needs a daemon that runs as root.",
        example="shop",
    ),
    "group": Option(
        Text(), "The group of the process (default: that of `user`). Needs a daemon that runs as root.", example="shop"
    ),
    "umask": Option(Umask(), "The umask of the process (default: that of the daemon).", example="027"),
    "nice": Option(Integer(-20, 19), "The nice value of the process, from -20 to 19 (lowest priority).", example="10"),
    "ionice": Option(
        IoPriority(),
        "The I/O priority of the process: idle, best-effort:LEVEL or realtime:LEVEL, with a level from 0 (highest) to 7.",
        example="best-effort:7",
    ),
    "limits": Option(LIMITS, "Resource limits of the process and of the run.", {},
        example="{open_files: 256, memory: 512M}"),
    "leftovers": Option(
        EnumOf(Leftovers),
        "What happens to leftovers, the processes that are alive after the main process has ended. kill: they are killed. "
        "keep: they continue.",
        Leftovers.KILL,
        example="keep",
    ),
    "output_limit": Option(
        Size(), "The largest size of the output of a run. Of a longer output, its head and its tail are stored.",
        10 * 1024**2,
        example="1M",
    ),
}  # fmt: skip

JOB: Mapping[str, Option] = {
    "name": Option(Text(), "A name for people (default: the job id).", example="Nightly report"),
    "description": Option(Text(), "What the job is for.", example="Sends the figures of the day before"),
    "enabled": Option(
        Boolean(), "false: the trigger of the job does not start it. It can still be started manually.", True,
        example="false",
    ),
    **TRIGGERS,
    "not_before": Option(Text(), "The job has no occurrence before this instant.", example="2027-01-01T00:00:00"),
    "not_after": Option(Text(), "The job has no occurrence after this instant.", example="2027-06-30T00:00:00"),
    "params": Option(
        MapOf(PARAM, PARAM_NAME, "a name of a parameter"), "Parameters that a caller can give when starting the job.", {},
        example="{day: {type: date}, copies: {type: integer, default: 1}}",
    ),
    **ACTIONS,
    "pool": Option(Text(NAME, "a name of a pool"), "The pool of which a run holds one slot.", example="disk"),
    "uses": Option(
        MapOf(Integer(1, MOST_SLOTS), NAME, "a name of a pool"), "Pools, and how many slots of each a run holds.",
        example="{disk: 2, db: 1}",
    ),
    "mutex": Option(
        Either(list, ListOf(Text(NAME, "a name")), Text(NAME, "a name")),
        "One or more mutexes. Of all jobs that name the same mutex, one runs at a time.",
        example="ledger",
    ),
    **POLICY,
}  # fmt: skip
