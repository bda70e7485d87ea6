"""Files of variables for the environment of a job's processes: lines KEY=VALUE, as in systemd.exec(5), EnvironmentFile=."""

from __future__ import annotations

import re
from collections.abc import Collection

from .errors import StartError
from .files import read_text

SIZE_LIMIT = 1024 * 1024  # bytes

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def variables_in(path: str, users: Collection[int] | None) -> dict[str, str]:
    """Return what a file sets; with '-' before its path it may be missing.

    Raise StartError, which shows no value, when it cannot be read, and when others than `users` may change it. None: it is
    not asked who may (nothing is run by what it says).
    """
    may_be_missing, path = path.startswith("-"), path.removeprefix("-")
    try:
        text = read_text(path, SIZE_LIMIT, users)
    except FileNotFoundError:
        if may_be_missing:
            return {}
        raise StartError(f"there is no env_file {path}") from None
    except ValueError as error:
        raise StartError(f"the env_file {path} cannot be read: {error}") from None
    return dict(
        _variable(path, number, line)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and line.lstrip()[0] not in "#;"
    )


def _variable(path: str, number: int, line: str) -> tuple[str, str]:
    found = _LINE.fullmatch(line)
    value = found[2].strip() if found else ""
    if value[:1] in ("'", '"') and value:
        is_closed = len(value) > 1 and value[-1] == value[0]
        value, found = value[1:-1], found if is_closed else None
    if found is None or "\0" in value:
        raise StartError(f"the env_file {path}, line {number}: expected KEY=VALUE")
    return found[1], value
