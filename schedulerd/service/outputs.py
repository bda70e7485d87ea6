"""The outputs of runs, for callers who may read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ..actions.registry import PREPARE
from ..core.errors import BusyError, ConflictError, ForbiddenError, GoneError, SecretError
from ..core.models import UNFINISHED, Actor, Role, Run, Secret, Status
from ..core.units import counted
from ..process.output import OutputFolder, OutputRange
from ..process.output_reader import OutputReader
from ..secrets.job_archive import JobArchive
from ..secrets.job_secrets import known_secrets
from .roles import needs
from .run_lookup import RunLookup

MOST_FOLLOWERS = 50  # callers that follow an output at the same time, on all listeners together

Sources = Callable[[], Iterable[str | Secret]]


class Outputs:
    """Opens the outputs of runs. Secrets are masked whenever an output is read."""

    def __init__(self, lookup: RunLookup, folder: OutputFolder, archive: JobArchive, sources: Sources) -> None:
        """`sources` returns the URLs of the configuration in force, whose passwords are masked in each output."""
        self._lookup = lookup
        self._folder = folder
        self._archive = archive
        self._sources = sources
        self._followers = 0

    @needs(Role.VIEWER)
    def open(self, run_id: str, actor: Actor) -> RunOutput:
        """Return the output of a run.

        Raise NotFoundError, or ForbiddenError when only an admin may read it.
        """
        run = self._lookup.get(run_id)
        if actor.role < Role.ADMIN:
            try:
                self._check_readable(run)
            except SecretError as error:
                raise ForbiddenError(f"only an admin may read the output of run {run_id}: {error}") from None
        return self.output_of(run)

    def output_of(self, run: Run) -> RunOutput:
        """Return the output of a run, without any check of the caller."""
        return RunOutput(run, self._lookup, self._folder, self._secrets_of)

    def _secrets_of(self, run: Run) -> Sequence[bytes]:
        """Return the secrets to mask in the output of a run: all that its job has ever named."""
        job = self._lookup.job_of(run)
        job = self._archive.removed_job(run.job_id) if job is None else self._archive.with_past_secrets(job)
        return known_secrets(job, self._sources())

    def _check_readable(self, run: Run) -> None:
        """Raise SecretError when an output may contain what cannot be masked.

        That is the case when it may quote the contents of a database, or when its job is gone and its secrets are unknown.
        """
        if self._archive.quotes_database(run.job_id):
            raise SecretError("it may quote the contents of a database")
        if not self._lookup.is_configured(run.job_id):
            self._archive.require_secrets(run.job_id)

    @needs(Role.VIEWER)
    @contextmanager
    def following(self) -> Iterator[None]:
        """Count a caller that follows an output. To be called in the thread of the event loop. Raise BusyError."""
        if self._followers >= MOST_FOLLOWERS:
            raise BusyError(f"{MOST_FOLLOWERS} callers follow outputs already: try again in a moment, or without follow")
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1


class RunOutput:
    """The output of one run."""

    def __init__(
        self, run: Run, lookup: RunLookup, folder: OutputFolder, secrets_of: Callable[[Run], Sequence[bytes]]
    ) -> None:
        """`secrets_of` returns the secrets to mask in what is read."""
        self.run = run
        self._lookup = lookup
        self._folder = folder
        self._secrets_of = secrets_of

    @property
    def size(self) -> int:
        """Return how many bytes the run has written so far."""
        return self._folder.size(self.run.run_id)

    @property
    def is_open(self) -> bool:
        """Return whether the run is queued or running in memory. Does not read the store."""
        return self._lookup.is_open(self.run)

    def is_complete(self) -> bool:
        """Return whether the run has ended, according to the ledger or to memory. Raise StoreError."""
        return self._lookup.has_ended(self.run)

    def stretch(self, offset: int) -> OutputRange:
        """Return the first stretch of output at or after `offset`.

        Raise GoneError when the output was removed or replaced, ConflictError when it cannot be opened at present.
        """
        run = self.run
        if self.is_removed:
            written = run.details.get("output_bytes")
            size = f" of {counted(written, 'byte')}" if written else ""
            what = f"the output{size} of run {run.run_id}"
            if instead := self._folder.instead(run.run_id):
                raise GoneError(f"{what} is not read: something else is in its place, {instead}")
            raise GoneError(f"{what} was removed, by `cleanup` or from outside")
        try:
            return self._folder.range_at(run.run_id, offset)
        except BlockingIOError:
            held = f"a process of the job's user holds a lease on the output of run {run.run_id}, which prevents opening it"
            raise ConflictError(f"{held}: try again when that process has ended, or in a minute") from None

    @property
    def is_removed(self) -> bool:
        """Return whether the output that the run has written, or may be writing, was removed."""
        run = self.run
        if not self._folder.is_gone(run.run_id):
            return False
        if run.status not in UNFINISHED:
            return bool(run.details.get("output_bytes") or run.details.get("output_error"))
        job = self._lookup.job_of(run)
        return run.status is Status.RUNNING and run.started_at is not None and job is not None and job.action in PREPARE

    def reader(self, offset: int) -> OutputReader:
        """Return a reader that begins at `offset` and masks secrets."""
        return OutputReader(self._folder, self.run.run_id, self._secrets_of(self.run), offset)
