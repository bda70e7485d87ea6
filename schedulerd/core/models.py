"""The values that all packages share: jobs, runs, results, pauses and actors.

Instants are aware UTC datetimes named `*_at`; durations are float seconds named `*_seconds`; sizes are `*_bytes`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

from .trigger import Trigger

Position = tuple[int, str]  # sequence and run id; rows of versions without sequences have 0 and are ordered by their ids
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Status(StrEnum):
    """The status of a run."""

    QUEUED = "queued"  # accepted; waits for a slot, a load gate, or the time of its retry
    RUNNING = "running"  # recorded in the ledger and started
    SUCCESS = "success"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # due and deliberately not started; details.reason is the reason
    MISSED = "missed"  # due while it could not be started
    ABANDONED = "abandoned"  # its exit status was lost


UNFINISHED = frozenset({Status.QUEUED, Status.RUNNING})
NOT_STARTED = frozenset({Status.SKIPPED, Status.MISSED})
ENDED = frozenset(Status) - UNFINISHED - NOT_STARTED  # started and ended


class Origin(StrEnum):
    """Why a run exists."""

    SCHEDULE = "schedule"
    CATCH_UP = "catch_up"
    RETRY = "retry"
    MANUAL = "manual"
    AFTER = "after"
    STARTUP = "startup"


class Overlap(StrEnum):
    """What happens to an occurrence that is due while its job is running."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"
    ALLOW = "allow"


class CatchUp(StrEnum):
    """What happens to misfires."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class Role(IntEnum):
    """The role of a caller; a higher role includes the lower ones."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Actor:
    """Who made a request: a user on the Unix socket or the name of a token, with its role."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret: its source (`env`, `file` or `credential`) and name. Resolved when needed, never shown."""

    source: str
    name: str

    def __str__(self) -> str:
        return f"{{{self.source}: {self.name}}}"


class ParamType(StrEnum):
    """The type of a job parameter."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Param:
    """The declaration of a job parameter; without a default (None), a request for a run must contain it."""

    type: ParamType = ParamType.TEXT
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    pattern: str | None = None
    max_length: int = 1000  # characters
    multiline: bool = False


class ParamWord(NamedTuple):
    """An argument of a command that is replaced by the value of a parameter."""

    name: str


@dataclass(frozen=True, slots=True)
class Job:
    """A named definition of the configuration. A reload leaves a job unchanged when its new definition is equal."""

    job_id: str
    name: str
    action: str  # the key in the YAML: command, shell, health_check, …
    options: Mapping[str, Any]  # the validated value of that key
    description: str | None = None
    trigger: Trigger | None = None
    enabled: bool = True
    timezone: str = "UTC"
    timeout_seconds: float | None = None
    kill_grace_seconds: float = 10.0
    overlap: Overlap = Overlap.SKIP
    max_instances: int | None = None  # concurrent runs with overlap allow or queue
    retries: int = 0  # further attempts after a failed one
    retry_delay_seconds: float = 10.0
    retry_backoff: float = 2.0  # factor from one delay to the next
    retry_max_delay_seconds: float = 3600.0
    retry_on: tuple[str | int, ...] = (Status.FAILED, Status.TIMED_OUT)  # statuses and exit codes
    reruns_abandoned: bool = False  # an abandoned run is started again
    deadline_seconds: float | None = None  # for all attempts, from the start of the first
    uses: Mapping[str, int] = field(default_factory=dict)  # slots of pools; a mutex is a pool with one slot
    priority: int = 0  # of the runs that wait for a pool, the higher priority starts first
    only_if: Mapping[str, float] = field(default_factory=dict)  # load gates, see concurrency.unmet_condition
    only_if_within_seconds: float = 3600.0
    catch_up: CatchUp = CatchUp.LATEST
    misfire_grace_seconds: float = 3600.0
    catch_up_limit: int = 100
    catch_up_age_seconds: float = 0.0  # 0 is no limit
    catch_up_spacing_seconds: float = 1.0
    cwd: str | None = None
    env: Mapping[str, str | Secret] = field(default_factory=dict)
    success_exit_codes: tuple[int, ...] = (0,)
    params: Mapping[str, Param] = field(default_factory=dict)
    python_path: tuple[str, ...] = ()
    interpreter: str | None = None  # of python jobs; None is the daemon's interpreter
    user: str | None = None  # that its process runs as: a name or number
    group: str | None = None
    umask: int | None = None
    nice: int | None = None
    ionice: tuple[int, int] | None = None  # class and level, as in ioprio_set(2)
    limits: Mapping[str, float] = field(default_factory=dict)  # in the units of the YAML: bytes, seconds or numbers
    keeps_leftovers: bool = False
    output_limit_bytes: int = 10 * 1024**2
    env_files: tuple[str, ...] = ()  # a path with the prefix '-' may be missing
    allowed_env: tuple[
        str, ...
    ] = ()  # allow_env: variables that decide what runs, accepted from files that the job's user can change

    @property
    def is_scheduled(self) -> bool:
        """Return whether the planner plans the job."""
        return self.enabled and self.trigger is not None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a job, or the recorded decision not to execute it: a row of the ledger."""

    run_id: str
    job_id: str
    origin: Origin
    status: Status
    queued_at: datetime
    scheduled_at: datetime | None = None  # the occurrence; None for a manual run
    attempt: int = 1
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_seconds: float | None = None
    exit_code: int | None = None
    records_processed: int = 0
    error_message: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    node: str = ""
    actor: str | None = None
    idempotency_key: str | None = None
    sequence: int | None = field(default=None, compare=False)  # see `position`; None: not recorded yet

    @property
    def position(self) -> Position:
        """Return the position of this run in the order of recording, which alone decides which run is newer."""
        return self.sequence or 0, self.run_id

    @property
    def fencing_token(self) -> int:
        """Return a number that grows with each run of the job, independent of the clock."""
        return self.sequence or token_of(self.run_id)

    @property
    def done_through(self) -> datetime:
        """Return the instant through which the job has done its work if this run succeeds: its occurrence or its start."""
        return self.scheduled_at or self.started_at or self.queued_at

    @property
    def lateness_seconds(self) -> float | None:
        """Return `started_at` − `scheduled_at` in seconds, or None for a manual run or one that was not started."""
        if self.scheduled_at is None or self.started_at is None:
            return None
        return (self.started_at - self.scheduled_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of an action before it is recorded."""

    status: Status
    records_processed: int = 0
    message: str | None = None  # the error, or a summary of what was done
    exit_code: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause of a job: since when, by whom, why, and until when."""

    paused_at: datetime
    actor: str
    reason: str | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What the store keeps of a job: its trigger, the start of its planning, and its pause."""

    job_id: str
    rule: str  # Trigger.text
    planned_since: datetime
    pause: Pause | None = None


def finish(run: Run, result: Result, finished_at: datetime, duration_seconds: float | None) -> Run:
    """Return `run` with the outcome `result`."""
    details = {**run.details, **result.details} if result.details else run.details
    if result.message and result.status is Status.SUCCESS:
        details = {**details, "message": result.message}
    return replace(
        run,
        status=result.status,
        finished_at=finished_at,
        duration_seconds=duration_seconds,
        exit_code=result.exit_code,
        records_processed=result.records_processed,
        error_message=None if result.status is Status.SUCCESS else result.message,
        details=details,
    )


def new_run_id(now: datetime) -> str:
    """Return a UUID version 7, which sorts by time (RFC 9562, with microseconds in `rand_a` by method 3)."""
    micros = to_micros(now)
    millis, rest = divmod(micros, 1000)
    value = (millis & (1 << 48) - 1) << 80 | 0x7 << 76 | (rest * 4096 // 1000) << 64 | 0b10 << 62
    text = f"{value | int.from_bytes(os.urandom(8), 'big') >> 2:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def token_of(run_id: str) -> int:
    """Return the time in a run id as a number: the sequence of the run, unless the clock was behind at its recording."""
    digits = run_id.replace("-", "")
    return int(digits[:12] + digits[13:16], 16)


def time_of(sequence: int) -> datetime:
    """Return the time of a sequence: when its run was recorded, unless the clock had been ahead before."""
    return EPOCH + timedelta(milliseconds=sequence >> 12)


def to_micros(instant: datetime) -> int:
    """Return microseconds since 1970-01-01 UTC, exactly."""
    return (instant - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the aware UTC datetime for microseconds since 1970-01-01 UTC."""
    return EPOCH + timedelta(microseconds=micros)


def to_text(instant: datetime) -> str:
    """Return `instant` in ISO 8601 with `Z`, with microseconds unless they are 0."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
