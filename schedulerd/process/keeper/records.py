"""The lines of the keeper's journal: how they are written, and validated when they are read.

A journal may be damaged or edited, and the keeper must start nevertheless. A line is used only when all of its values are
valid, so code that uses records needs no further checks.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

KINDS = ("intent", "start", "end")  # what is known of a run
_LATEST = 253_402_300_799.0  # seconds since 1970: the end of the year 9999
_RUN_ID = re.compile(r"\w[\w.-]{0,127}", re.ASCII)

JournalRecord = dict[str, Any]
_Check = Callable[[object], bool]


def line_of(values: Mapping[str, Any]) -> bytes:
    """Return a record as a line of the journal."""
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def record_of(line: bytes) -> JournalRecord:
    """Return the record of a line, an empty one for an unknown kind. Raise ValueError for an invalid line."""
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise ValueError("it is not a record")
    needs = _NEEDS.get(record["kind"])
    if needs is None:
        return {}
    wrong = [name for name, is_right in needs.items() if not is_right(record.get(name))]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: not valid")
    return record


def is_run_id(value: object) -> bool:
    """Return whether a value can be a run_id, which is also the name of a file and of a control group."""
    return isinstance(value, str) and _RUN_ID.fullmatch(value) is not None


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_path(value: object) -> bool:
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeError:
        return False
    return True


def _number(least: float, most: float) -> _Check:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _whole(least: int, most: int) -> _Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _list_of(is_right: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(is_right, value))


def _mapping_to(is_right: _Check) -> _Check:
    return lambda value: isinstance(value, dict) and all(map(is_right, value.values()))


def _maybe(is_right: _Check) -> _Check:
    return lambda value: value is None or is_right(value)


_is_number, _is_moment = _number(-_LATEST, _LATEST), _number(0, _LATEST)
_is_count, _is_exit_code, _is_pid = _whole(0, 2**63 - 1), _whole(-1000, 2**31), _whole(1, 2**31 - 1)
_NEEDS: dict[str, dict[str, _Check]] = {
    "boot": {"id": _is_text, "format": _maybe(_is_count)},
    "doubt": {"why": _is_text},
    "settled": {},
    "withdrawn": {"runs": _list_of(is_run_id)},
    "forget": {"runs": _list_of(is_run_id)},
    "forgotten": {"to": is_run_id},
    "intent": {
        "run": is_run_id, "since": _is_number, "deadline": _maybe(_is_number), "grace": _is_number, "keep": _is_flag,
        "output": _is_path, "limit": _maybe(_is_count), "group": _maybe(_mapping_to(_is_number)),
        "who": _maybe(_mapping_to(_is_text)),
    },
    "start": {"run": is_run_id, "pid": _is_pid, "began": _is_count, "at": _is_moment},
    "end": {
        "run": is_run_id, "at": _is_moment, "cause": _maybe(_is_text), "seconds": _maybe(_is_number),
        "code": _maybe(_is_exit_code), "cpu": _maybe(_is_number), "peak": _maybe(_is_count), "lost": _maybe(_is_text),
        "oom": _maybe(_is_count), "pids": _maybe(_is_count), "unkept": _maybe(_list_of(_is_text)),
        "erased": _maybe(_is_flag),
    },
}  # fmt: skip
