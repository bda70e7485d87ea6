"""The archive of jobs: what is needed to end runs and to mask outputs of jobs that are no longer configured.

A run can outlive its job: the daemon stops, the job is removed from the configuration, and the next daemon receives the
end of the run. Its output is readable as long as it is kept. A file beside the history, with mode 0600, therefore
records for each job how the end of a run is judged and all references to secrets that it ever had. It contains no
values of secrets.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ..core.errors import SecretError, StartError
from ..core.models import Job, Secret
from ..host.files import free_name, write_private
from .database_errors import OF_CONTENTS
from .env_files import variables_in
from .job_secrets import known_secrets
from .references import resolve_to_mask, secrets_in

log = logging.getLogger(__name__)

MOST_GONE = 10_000  # removed jobs in the archive; older ones are dropped
_SETTINGS = ("action", "user", "success_exit_codes", "output_limit_bytes")

ArchivedJob = Mapping[str, Any]  # the entry in the file


class JobArchive:
    """The archived jobs by id, in memory and in the file at `path`."""

    def __init__(self, path: str) -> None:
        """Read the file. Unusable content is set aside and logged: removed jobs in it are unknown."""
        self._path = path
        self._kept: dict[str, ArchivedJob] = {}
        try:
            with open(path, encoding="utf-8") as file:
                read = json.load(file)
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            self._set_aside(str(error))
            return
        if isinstance(read, dict):
            self._kept = {job_id: kept for job_id, kept in read.items() if _is_valid(kept)}
        if read != self._kept:
            self._set_aside("its content has an unknown form")

    def _set_aside(self, why: str) -> None:
        """Rename the file; the next `record` creates a new one."""
        try:
            aside = free_name(self._path, "damaged", datetime.fromtimestamp(os.stat(self._path).st_mtime, UTC))
            os.rename(self._path, aside)
        except OSError as error:
            aside = f"nothing ({error.strerror})"
        text = "%s is damaged and was renamed to %s: only admins can read outputs of removed jobs that it contained (%s)"
        log.error(text, self._path, aside, why)

    def record(self, jobs: Mapping[str, Job]) -> None:
        """Archive a set of jobs, before any of them starts. If writing fails, the archive in memory is complete."""
        gone = [job_id for job_id in self._kept if job_id not in jobs][-MOST_GONE:]
        kept = {job_id: self._kept[job_id] for job_id in gone}
        kept |= {job_id: _archived(job, self._kept.get(job_id, {})) for job_id, job in jobs.items()}
        if kept == self._kept:
            return
        self._kept = kept
        try:
            write_private(self._path, json.dumps(kept, separators=(",", ":")))
        except OSError as error:
            log.error("%s cannot be written: %s", self._path, error.strerror)

    def actions(self) -> dict[str, str]:
        """Return the last known action of each job, by job id."""
        return {job_id: kept["action"] for job_id, kept in self._kept.items()}

    def quotes_database(self, job_id: str) -> bool:
        """Return whether a job has or had an action whose output may quote the contents of a database."""
        return _quotes_database(self._kept.get(job_id, {}))

    def removed_job(self, job_id: str) -> Job | None:
        """Return a removed job with its archived settings, None when it is unknown."""
        kept = self._kept.get(job_id)
        if kept is None:
            return None
        settings = {name: kept[name] for name in _SETTINGS if name in kept}
        settings["success_exit_codes"] = tuple(settings.get("success_exit_codes", ()))
        return self.with_past_secrets(Job(job_id, job_id, options={}, **settings))

    def with_past_secrets(self, job: Job) -> Job:
        """Return a job with its earlier references to secrets added, for masking only."""
        kept = self._kept.get(job.job_id, {})
        past = {f"past {number}": Secret(*each) for number, each in enumerate(kept.get("secrets", ()))}
        files = dict.fromkeys((*job.env_files, *kept.get("env_files", ())))
        return replace(job, env={**job.env, **past}, env_files=tuple(files))

    def secrets_of(self, job: Job, is_gone: bool, sources: Iterable[str | Secret]) -> Sequence[bytes]:
        """Return the values to mask in a run's messages, see `known_secrets`. Raise SecretError for unresolved ones."""
        if is_gone:
            self.require_secrets(job.job_id)
        return known_secrets(self.with_past_secrets(job), sources)

    def require_secrets(self, job_id: str) -> None:
        """Raise SecretError when the secrets of a removed job cannot all be resolved."""
        job = self.removed_job(job_id)
        if job is None:
            raise SecretError("its job is no longer configured, and its secrets are unknown")
        try:
            for secret in secrets_in(job.env):
                resolve_to_mask(secret)
            for path in job.env_files:
                variables_in(path, None)
        except (SecretError, StartError) as error:
            raise SecretError(
                f"its job is no longer configured, and not all of its secrets can be resolved: {error}"
            ) from None


def _is_valid(kept: object) -> bool:
    """Return whether an entry has the form that `_archived` creates."""
    if not isinstance(kept, dict) or not isinstance(kept.get("action"), str):
        return False
    codes, secrets, files = (kept.get(name, []) for name in ("success_exit_codes", "secrets", "env_files"))
    if not all(isinstance(each, list) for each in (codes, secrets, files)):
        return False
    is_pair = all(isinstance(each, list) and len(each) == 2 for each in secrets)
    texts = [kept.get("user") or "", *files, *(text for each in secrets for text in each)] if is_pair else [None]
    limit = kept.get("output_limit_bytes")
    numbers = [*codes, 0 if limit is None else limit]
    return all(isinstance(each, str) for each in texts) and all(type(each) is int for each in numbers)


def _archived(job: Job, before: ArchivedJob) -> ArchivedJob:
    secrets = [[each.source, each.name] for each in secrets_in([job.env, job.options])]
    kept: dict[str, Any] = {name: getattr(job, name) for name in _SETTINGS}
    kept["success_exit_codes"] = list(job.success_exit_codes)
    kept["secrets"] = _joined(before.get("secrets", []), secrets)
    kept["env_files"] = _joined(before.get("env_files", []), job.env_files)
    kept["of_contents"] = _quotes_database(before) or job.action in OF_CONTENTS or None
    return {name: each for name, each in kept.items() if each not in (None, [])}


def _quotes_database(kept: ArchivedJob) -> bool:
    return bool(kept.get("of_contents")) or kept.get("action") in OF_CONTENTS  # earlier versions wrote only the latter


def _joined(old: list[Any], new: Any) -> list[Any]:
    return [*old, *(each for number, each in enumerate(new) if each not in old and each not in new[:number])]
