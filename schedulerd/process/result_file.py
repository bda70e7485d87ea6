"""The result file: a JSON object that the process of a run may write to the path in `SCHEDULERD_RESULT_FILE`.

    {"records_processed": 120, "message": "…", "details": {…}, "progress": 0.4}

An invalid value is a warning and never the failure of a run; the valid values beside it are used.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.models import Job, Result, Run, Status
from ..core.retries import OWN_DETAILS
from ..host.files import read_regular
from ..secrets.database_errors import OF_CONTENTS
from ..secrets.masking import masked_value

RESULT_LIMIT = 64 * 1024  # bytes
MESSAGE_LIMIT = 2000  # characters
LARGEST_COUNT = 2**63 - 1
DEEPEST = 20
MOST_WARNINGS = 20
# Actions whose process is a program of schedulerd, which reports itself why it failed.
OWN_PROGRAMS = frozenset({"python", "http", "sql", "backup", "restore_drill"})
# Details that schedulerd sets: it decides by them what follows a run, and explains its status.
RESERVED = OWN_DETAILS | {"retry", "params", "after", "rules", "cause", "again", "blocking_run", "cancelled_by"}


@dataclass(frozen=True, slots=True)
class Reported:
    """The validated content of a result file; `warnings` name the values that could not be used."""

    records_processed: int = 0
    message: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    progress: float | None = None  # 0 to 1
    warnings: tuple[str, ...] = ()

    def without_texts(self) -> Reported:
        """Return the numbers alone."""
        return Reported(self.records_processed, progress=self.progress)


def result_path(output_path: str, job: Job) -> str:
    """Return the path of a run's result file: beside its output, or where the `user` of the job can reach it."""
    stem = output_path.removesuffix(".log")
    if job.user is None:
        return f"{stem}.result"
    state_dir = os.path.dirname(os.path.dirname(os.path.dirname(stem)))  # above output/DAY
    return os.path.join(state_dir, "results", f"{os.path.basename(stem)}.result")


def make_result_file(path: str, uid: int) -> None:
    """Create an empty result file that another user owns, and let that user traverse its folders. Raise OSError.

    Other users can traverse the folders then, but neither list them nor create files in them.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o711)  # noqa: S103 - others may pass, not list
    state_dir = os.path.dirname(folder)
    mode = stat.S_IMODE(os.stat(state_dir).st_mode)
    if not mode & 0o001:
        os.chmod(state_dir, mode | 0o011)  # noqa: S103 - others may pass, not list
    made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(made, uid, -1)
    finally:
        os.close(made)


def take_result(path: str) -> Reported:
    """Return the content of the result file of a run that has ended, and remove the file."""
    reported = read_result(path)
    with suppress(OSError):
        os.unlink(path)
    return reported


def read_result(path: str) -> Reported:
    """Return the content of a result file so far; an empty one when there is no file."""
    try:
        data = read_regular(path, RESULT_LIMIT, os.O_NOFOLLOW)
    except FileNotFoundError:
        return Reported()
    except (OSError, ValueError) as error:
        return Reported(warnings=(f"the result file was not read: {getattr(error, 'strerror', None) or error}",))
    return _parsed(data) if data.strip() else Reported()


def _parsed(data: bytes) -> Reported:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        return Reported(warnings=(f"the result file is not JSON: {str(error)[:200]}",))
    if not isinstance(value, dict):
        return Reported(warnings=("the result file is not a JSON object",))
    warnings = _own_warnings(value.pop("warnings", []))
    out: dict[str, Any] = {}
    for key, each in value.items():
        why_not = _KEYS[key](each) if key in _KEYS else f"the result knows no {_shown(key)}"
        if why_not:
            warnings.append(why_not)
        elif each is not None:
            out[key] = each
    return Reported(**out, warnings=tuple(warnings[:MOST_WARNINGS]))


def shown(reported: Reported, secrets: Sequence[bytes]) -> Reported:
    """Return the content with secrets masked and texts then cut to MESSAGE_LIMIT."""
    if reported.message is not None:
        reported = replace(reported, message=_cut(masked_value(reported.message, secrets)))
    warnings = tuple(_cut(masked_value(each, secrets)) for each in reported.warnings)
    return replace(reported, warnings=warnings, details=masked_value(reported.details, secrets))


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"


def _own_warnings(given: Any) -> list[str]:
    """Return the warnings that the run itself reports."""
    texts = given if isinstance(given, list) else [given]
    return [each for each in texts if isinstance(each, str) and _is_text(each)]


def _shown(key: str) -> str:
    return repr(key[:60]) if _is_text(key) else "such key"


def _count(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT:
        return None
    return "records_processed is not a whole number of 0 or more"


def _message(value: Any) -> str | None:
    return None if value is None or (isinstance(value, str) and _is_text(value)) else "message is not a text"


def _details(value: Any) -> str | None:
    if value is None:
        return None
    return None if isinstance(value, dict) and _is_plain(value) else "details is not a mapping of plain JSON values"


def _progress(value: Any) -> str | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1):
        return None
    return "progress is not a number from 0 to 1"


_KEYS: Mapping[str, Callable[[Any], str | None]] = {
    "records_processed": _count, "message": _message, "details": _details, "progress": _progress,
}  # fmt: skip


def _is_text(text: str) -> bool:
    """Return whether every store can keep a text: no half of a surrogate pair, and, for PostgreSQL, no NUL."""
    return "\0" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)


def _is_plain(value: Any, depth: int = 0) -> bool:
    if depth > DEEPEST:
        return False
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, dict):
        return all(_is_text(key) and _is_plain(each, depth + 1) for key, each in value.items())
    if isinstance(value, list):
        return all(_is_plain(each, depth + 1) for each in value)
    return math.isfinite(value) if isinstance(value, float) else True


def merged(job: Job, run: Run, reported: Reported, result: Result, tail: str | None) -> Result:
    """Return the result of a run combined with its result file; `tail` is the end of its output.

    The result file replaces nothing that schedulerd knows: its own details win, RESERVED names cannot be set, and the
    message of a failure begins with schedulerd's reason.
    """
    said = {name: each for name, each in reported.details.items() if name not in RESERVED}
    details = {**said, **run.details, **result.details}
    taken = sorted(reported.details.keys() & RESERVED)
    warnings = [*reported.warnings, *(f"the result may not set details.{name}: schedulerd does" for name in taken)]
    if warnings:
        details["warnings"] = warnings
    if reported.progress is not None:
        details["progress"] = reported.progress
    message = reported.message
    is_ours = job.action in OWN_PROGRAMS and (result.status, result.exit_code) == (Status.FAILED, 1)
    if result.status is not Status.SUCCESS and not (is_ours and message):
        reason = ": ".join(filter(None, (result.message, message)))
        message = f"{reason}; last output: {tail}" if tail and not message and job.action not in OF_CONTENTS else reason
    return Result(result.status, reported.records_processed, message, result.exit_code, details)
