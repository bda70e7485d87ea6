"""Probe of backups: checks that the newest backup of each job is good, and the last good one not older than `max_age`.

Only the catalogues are read, not the contents of backups.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...backups.catalogue import Catalogue
from ...backups.entry import CatalogueEntry
from ...backups.manifest import instant
from ...backups.source import BackupError
from ...core.models import Job
from ...core.units import counted, format_duration
from ..environment import users_of
from . import DEGRADED, HEALTHY, Answer, Cut, error_text

MOST_AHEAD = 3600.0  # seconds of tolerance for clocks that differ or are set


def probe(jobs: Mapping[str, Job], now: datetime, _cut: Cut) -> Answer:
    """Return the state of the backups of each job in `jobs`. A job whose folder cannot be read has an `error`."""
    found = {job_id: _of_job_or_why(job, now) for job_id, job in jobs.items()}
    errors = [f"{job_id}: {one['error']}" for job_id, one in found.items() if "error" in one]
    return {"status": DEGRADED if errors else HEALTHY, "jobs": found, **({"error": "; ".join(errors)} if errors else {})}


def _of_job_or_why(job: Job, now: datetime) -> dict[str, Any]:
    try:
        return _of_job(job, now)
    except (BackupError, OSError) as error:
        return {"error": error_text(error)}


def _of_job(job: Job, now: datetime) -> dict[str, Any]:
    entries = _entries(job)
    good = next((entry for entry in entries if entry.is_good), None)
    there = [entry for entry in entries if not entry.is_missing]
    proven = next((entry for entry in there if entry.manifest.is_proven), None)
    age = (now - instant(good.manifest.created_at)).total_seconds() if good else None
    why = _doubt(entries, age, job.options["max_age"])
    return {
        "count": len(there),
        "missing": len(entries) - len(there),
        "size_bytes": sum(entry.size_bytes for entry in entries),
        "last_good_at": good.manifest.created_at if good else None,
        "last_good_age_seconds": None if age is None else round(age, 1),
        "last_proven_at": proven.manifest.created_at if proven else None,
        **({"error": why} if why else {}),
    }


def _entries(job: Job) -> list[CatalogueEntry]:
    folder = job.options["directory"]
    if not os.path.isdir(folder):
        return []
    with Catalogue(folder, makers=users_of(job)) as catalogue:
        return catalogue.of_job(job.job_id, job.options["owner"])


def _doubt(entries: list[CatalogueEntry], age: float | None, max_age: float) -> str | None:
    there = [entry for entry in entries if not entry.is_missing]
    aliens = [f"{entry.manifest.filename}: {entry.alien}" for entry in there[1:] if entry.alien]  # the newest: `_of_those`
    missing = [entry.manifest.filename for entry in entries if entry.is_missing]
    found = [_missing(missing), _others(aliens), _of_those(there, age, max_age)]
    return "; ".join(filter(None, found)) or None


def _missing(names: list[str]) -> str | None:
    if not names:
        return None
    more = f" (and {counted(len(names) - 1, 'more backup')})" if names[1:] else ""
    return f"{names[0]}{more}: the file is missing; if it may: schedulerctl backups forget {names[0]}"


def _others(told: list[str]) -> str | None:
    return told[0] + (f" (and {counted(len(told) - 1, 'more backup')})" if told[1:] else "") if told else None


def _of_those(there: list[CatalogueEntry], age: float | None, max_age: float) -> str | None:
    if there and not there[0].is_good:
        return f"{there[0].manifest.filename}: {'; '.join(there[0].doubts)}"
    if age is not None and age < -MOST_AHEAD:
        return f"the last good one is dated {format_duration(-age)} ahead: the clock was wrong when it was made, or is now"
    if max_age and age is None:
        return "there is no good backup that was made here"
    if max_age and age is not None and age > max_age:
        return f"the last good one is {format_duration(age)} old, more than {format_duration(max_age)}"
    return None
