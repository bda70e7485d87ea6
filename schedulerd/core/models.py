"""The words of schedulerd as values: jobs, occurrences, runs, and who asks for them.

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

Position = tuple[int, str]  # sequence and run_id; rows from before there were sequences have 0, and the order of their ids
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Status(StrEnum):
    """What has become of a run."""

    QUEUED = "queued"  # accepted, waits for its turn, a pool, or the time of its retry
    RUNNING = "running"  # claimed in the ledger and started
    SUCCESS = "success"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # due but not started, on purpose: details.reason says why
    MISSED = "missed"  # due while nobody could start it
    ABANDONED = "abandoned"  # its daemon died while it ran, and its end was not seen


UNFINISHED = frozenset({Status.QUEUED, Status.RUNNING})
NOT_STARTED = frozenset({Status.SKIPPED, Status.MISSED})
ENDED = frozenset(Status) - UNFINISHED - NOT_STARTED  # it was started, and it is over


class Origin(StrEnum):
    """Why a run exists."""

    SCHEDULE = "schedule"
    CATCH_UP = "catch_up"
    RETRY = "retry"
    MANUAL = "manual"
    AFTER = "after"
    STARTUP = "startup"


class Overlap(StrEnum):
    """What becomes of an occurrence that is due while its job runs."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"
    ALLOW = "allow"


class CatchUp(StrEnum):
    """What becomes of misfires."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class Role(IntEnum):
    """What a caller may do; a higher role includes the lower ones."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: a token's id, or a uid on the socket, with its role."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret (`env`, `file` or `credential`, and its name): resolved late, never shown."""

    source: str
    name: str

    def __str__(self) -> str:
        return f"{{{self.source}: {self.name}}}"


class ParamType(StrEnum):
    """What a parameter of a job may be."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter that a job declares; without a default (None) who asks for a run has to give it."""

    type: ParamType = ParamType.TEXT
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    pattern: str | None = None
    max_length: int = 1000  # characters
    multiline: bool = False


class ParamWord(NamedTuple):
    """The place of a parameter's value among the words of a command."""

    name: str


@dataclass(frozen=True, slots=True)
class Job:
    """A named definition from the configuration. Two equal jobs behave alike, so a reload leaves them alone."""

    job_id: str
    name: str
    action: str  # the key in the YAML: command, shell, health_check, …
    options: Mapping[str, Any]  # what stands under that key, checked
    description: str | None = None
    trigger: Trigger | None = None
    enabled: bool = True
    timezone: str = "UTC"
    timeout_seconds: float | None = None
    kill_grace_seconds: float = 10.0
    overlap: Overlap = Overlap.SKIP
    max_instances: int | None = None  # with overlap allow or queue: so many at once
    retries: int = 0  # further attempts after a first one that failed
    retry_delay_seconds: float = 10.0
    retry_backoff: float = 2.0  # each delay is so many times the one before
    retry_max_delay_seconds: float = 3600.0
    retry_on: tuple[str | int, ...] = (Status.FAILED, Status.TIMED_OUT)  # statuses and exit codes
    reruns_abandoned: bool = False  # a run whose end was not seen is run again
    deadline_seconds: float | None = None  # for all attempts, from the start of the first
    uses: Mapping[str, int] = field(default_factory=dict)  # seats of pools; a mutex is a pool of one seat
    priority: int = 0  # the higher one starts first of those that wait for the same pool
    only_if: Mapping[str, float] = field(default_factory=dict)  # what the host's load must be, see admission.unmet
    only_if_within_seconds: float = 3600.0
    catch_up: CatchUp = CatchUp.LATEST
    misfire_grace_seconds: float = 3600.0
    catch_up_limit: int = 100
    catch_up_age_seconds: float = 0.0  # no bound
    catch_up_spacing_seconds: float = 1.0
    cwd: str | None = None
    env: Mapping[str, str | Secret] = field(default_factory=dict)
    success_exit_codes: tuple[int, ...] = (0,)
    params: Mapping[str, Param] = field(default_factory=dict)
    python_path: tuple[str, ...] = ()
    interpreter: str | None = None  # of python: jobs; None is the daemon's own
    user: str | None = None  # whom its process runs as: a name or number
    group: str | None = None
    umask: int | None = None
    nice: int | None = None
    ionice: tuple[int, int] | None = None  # class and level, as in ioprio_set(2)
    limits: Mapping[str, float] = field(default_factory=dict)  # as in the YAML: bytes, seconds or numbers
    keeps_leftovers: bool = False
    output_limit_bytes: int = 10 * 1024**2
    env_files: tuple[str, ...] = ()  # with '-' before the path: it may be missing
    allowed_env: tuple[str, ...] = ()  # what one that its user may change sets although that decides what runs

    @property
    def is_scheduled(self) -> bool:
        """Return whether the planner has anything to do for it."""
        return self.enabled and self.trigger is not None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a job, or the decision not to execute it: a row of the ledger."""

    run_id: str
    job_id: str
    origin: Origin
    status: Status
    queued_at: datetime
    scheduled_at: datetime | None = None  # the occurrence; None for a run that was asked for by hand
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
    sequence: int | None = field(default=None, compare=False)  # see `place`; None: not recorded yet

    @property
    def position(self) -> Position:
        """Return the place of this run in the order of recording, which alone says which run is newer."""
        return self.sequence or 0, self.run_id

    @property
    def fencing_token(self) -> int:
        """Return a number that is larger for each later run, whatever the clock said."""
        return self.sequence or token_of(self.run_id)

    @property
    def done_through(self) -> datetime:
        """Return up to when its job has done its work if this is a success: its occurrence, or when it was started."""
        return self.scheduled_at or self.started_at or self.queued_at

    @property
    def lateness_seconds(self) -> float | None:
        """Return `started_at` − `scheduled_at`, or None when it was not scheduled or not started."""
        if self.scheduled_at is None or self.started_at is None:
            return None
        return (self.started_at - self.scheduled_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Result:
    """How an action ended, before it becomes the end of a run."""

    status: Status
    records_processed: int = 0
    message: str | None = None  # why it failed, or what it did
    exit_code: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pause:
    """Why, since when and until when a job is not started on its own."""

    paused_at: datetime
    actor: str
    reason: str | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What outlives the daemon about a job: its rule, from when on it is planned, and its pause."""

    job_id: str
    rule: str  # Trigger.text
    planned_since: datetime
    pause: Pause | None = None


def finish(run: Run, result: Result, finished_at: datetime, duration_seconds: float | None) -> Run:
    """Return `run` as it ended."""
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
    """Return a UUID that sorts by time (version 7, RFC 9562, with the microseconds in `rand_a`: its method 3)."""
    micros = to_micros(now)
    millis, rest = divmod(micros, 1000)
    value = (millis & (1 << 48) - 1) << 80 | 0x7 << 76 | (rest * 4096 // 1000) << 64 | 0b10 << 62
    text = f"{value | int.from_bytes(os.urandom(8), 'big') >> 2:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def token_of(run_id: str) -> int:
    """Return the time in a run_id as a number: the sequence of a run whose clock was right."""
    digits = run_id.replace("-", "")
    return int(digits[:12] + digits[13:16], 16)


def time_of(sequence: int) -> datetime:
    """Return the time of `token_of`: when a run of that sequence was recorded, unless the clock had been ahead before."""
    return EPOCH + timedelta(milliseconds=sequence >> 12)


def to_micros(instant: datetime) -> int:
    """Return microseconds since 1970-01-01 UTC, exactly."""
    return (instant - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the aware UTC datetime of `to_micros`."""
    return EPOCH + timedelta(microseconds=micros)


def to_text(instant: datetime) -> str:
    """Return `instant` in ISO 8601 with `Z`, microseconds only when there are some."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
