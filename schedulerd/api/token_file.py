"""Reads `tokens.json`: the tokens, their roles and when they expire.

The daemon's user must own the file, and no other user may read or change it. An unknown key is an error, since it may be a
misspelt restriction: no token of a file with an error is accepted.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.errors import UnsafeError
from ..core.models import Role
from ..core.text import did_you_mean, hidden
from ..host.accounts import chown_argument, name_of

KNOWN = ("id", "sha256", "role", "created_at", "expires_at")
NEEDED = ("id", "sha256", "role")
LARGEST = 1024 * 1024  # bytes
FORM = '{"tokens": [{"id": "…", "sha256": "64 hex digits", "role": "viewer|operator|admin", "expires_at": null}]}'
LONGEST_NAME = 64  # characters
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@:-]{0,63}")  # an id that messages may show; otherwise they show the number
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}")  # a key that messages may show: another one may be a token or its hash
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_ROLES = {role.name.lower(): role for role in Role}


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is stored: without its text."""

    token_id: str
    digest: bytes
    role: Role
    expires_at: datetime | None = None


def read_tokens(path: str) -> list[Token]:
    """Return the tokens in a file.

    Raise UnsafeError when other users can read or change it, ValueError for other errors, OSError when it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        _check(path, os.lstat(path), is_readable=False)
        raise
    with open(descriptor, "rb") as file:
        _check(path, os.fstat(descriptor), is_readable=True)
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 1024} KiB")
    return parse_tokens(data)


def _check(path: str, found: os.stat_result, *, is_readable: bool) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise ValueError("it is a symbolic link: replace it by the file")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a regular file: replace it by one")
    is_exposed, commands = bool(found.st_mode & 0o077), list(_commands(path, found))
    is_ours = found.st_uid in (0, os.geteuid()) if is_readable else not commands
    if is_ours and not is_exposed:
        return
    known = f"its owner is {name_of(found.st_uid)} and its mode {stat.S_IMODE(found.st_mode):04o}"
    wanted = f"{name_of(os.geteuid())} must own it, and only {name_of(os.geteuid())} may read it"
    why = f"{known}; {wanted}: {' && '.join(commands)}"
    raise UnsafeError(why) if is_exposed else ValueError(why)


def _commands(path: str, found: os.stat_result) -> Iterator[str]:
    """Yield the commands that make a file readable for the daemon's user only."""
    if found.st_uid != os.geteuid():  # also for one of root: with mode 0600 the daemon could not read it
        yield f"chown -h {chown_argument(os.geteuid())} {shlex.quote(path)}"  # -h: not the target of a link
    if found.st_mode & 0o077 or not found.st_mode & 0o400:
        yield f"chmod 600 {shlex.quote(path)}"


def parse_tokens(data: bytes) -> list[Token]:
    """Return the tokens in the content of a file. Raise ValueError that lists each error with its place."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON of the form {FORM} ({_place_of(error)})") from None
    if not isinstance(value, _Pairs) or not isinstance(entries := dict(value.pairs).get("tokens"), list):
        raise ValueError(f"it must have the form {FORM}")
    problems = list(_wrong_keys(value, ("tokens",), ("tokens",)))
    for number, entry in enumerate(entries, 1):
        problems += [f"{_named(number, entry)}: {each}" for each in _problems(entry)]
    problems += [*_doubles("id", entries), *_doubles("sha256", entries)]
    if problems:
        raise ValueError("; ".join(problems))
    return [_token(dict(entry.pairs)) for entry in entries]


class _Pairs:
    """A JSON object with all keys of the text, including repeated ones."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _place_of(error: Exception) -> str:
    return (
        f"line {error.lineno}: {error.msg}"
        if isinstance(error, json.JSONDecodeError)
        else "it is not UTF-8, or nested too deeply"
    )


def _named(number: int, entry: Any) -> str:
    """Return the number of an entry, with its id when messages may show it."""
    token_id = dict(entry.pairs).get("id") if isinstance(entry, _Pairs) else None
    return f"token {number} ({token_id})" if isinstance(token_id, str) and _NAME.fullmatch(token_id) else f"token {number}"


def _problems(entry: Any) -> Iterator[str]:
    if not isinstance(entry, _Pairs):
        yield f"expected {{…}} with {_listed(KNOWN)}, not {_shown(entry)}"
        return
    yield from _wrong_keys(entry, KNOWN, NEEDED)
    value = dict(entry.pairs)
    if "id" in value and not _is_name(value["id"]):
        yield f"id: expected a name of at most {LONGEST_NAME} characters on one line, not {_shown(value['id'])}"
    if "sha256" in value and not _is(value["sha256"], _DIGEST):
        yield f"sha256: expected the 64 hex digits of `printf %s TEXT | sha256sum`, not {_shown(value['sha256'])}"
    if "role" in value and not (isinstance(value["role"], str) and value["role"].lower() in _ROLES):
        yield f"role: expected {' or '.join(_ROLES)}, not {_word(value['role'])}{_meant(value['role'], _ROLES)}"
    for key in ("created_at", "expires_at"):
        if value.get(key) is not None and _instant(value[key]) is None:
            yield f"{key}: expected null or a time with a zone, such as 2027-01-31T06:00:00Z, not {_shown(value[key])}"


def _wrong_keys(entry: _Pairs, known: tuple[str, ...], needed: tuple[str, ...]) -> Iterator[str]:
    keys = [key for key, _ in entry.pairs]
    for key in dict.fromkeys(keys):
        shown = repr(key) if _WORD.fullmatch(key) else f"of {len(key)} characters"
        if key not in known:
            yield f"unknown key {shown}{_meant(key, known)}: known are {_listed(known)}"
        elif keys.count(key) > 1:
            yield f"the key {shown} occurs {keys.count(key)} times"
    yield from (f"{key} is missing" for key in needed if key not in keys)


def _doubles(key: str, entries: list[Any]) -> Iterator[str]:
    """Yield the entries that repeat an `id`, which the log could not distinguish, or a token."""
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries, 1):
        value = dict(entry.pairs).get(key) if isinstance(entry, _Pairs) else None
        if (
            isinstance(value, str)
            and (first := seen.setdefault(value.lower() if key == "sha256" else value, number)) != number
        ):
            yield f"{_named(number, entry)} has the {key} of token {first}"


def _token(value: dict[str, Any]) -> Token:
    digest, role = bytes.fromhex(value["sha256"]), _ROLES[value["role"].lower()]
    return Token(value["id"], digest, role, _instant(value.get("expires_at")))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= len(value) <= LONGEST_NAME


def _is(value: Any, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _instant(value: Any) -> datetime | None:
    """Return the time in a value, None unless it is a time with an offset."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo is not None else None


def _meant(word: Any, known: Iterable[str]) -> str:
    return did_you_mean(word, known) if isinstance(word, str) else ""


def _shown(value: Any) -> str:
    """Return a description of a wrong value that does not show it: it may be a misplaced token."""
    return "a mapping" if isinstance(value, _Pairs) else hidden(value)


def _word(value: Any) -> str:
    return repr(value) if _is(value, _WORD) else _shown(value)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
