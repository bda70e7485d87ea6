"""The last good configuration: a copy of the contents of its files, in the state directory.

It is replaced whenever a configuration takes effect. A daemon that finds mistakes in its files at startup uses the copy, so
that its jobs still run. A copy belongs to one configuration, identified by the path of its main file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .. import __version__
from ..core.errors import ConfigError, Problem, SchedulerdError
from ..core.models import to_text
from ..host.files import fsync_folder, write_private
from .config import Config
from .files import Contents, CopiedFiles, Files
from .loader import load
from .settings import TOP
from .yaml import Document

log = logging.getLogger(__name__)

FOLDER, NAME = "last_good", "config.json"
FORMAT = 1  # the version of the format of the copy; no other one is read
LARGEST_COPY = 256 * 1024 * 1024  # bytes
STATE_VARIABLE = "STATE_DIRECTORY"  # systemd.exec(5)
_STATE_DIR = re.compile(r"^state_dir[ \t]*:(.*)$", re.MULTILINE)


class CopyError(SchedulerdError):
    """The copy of the last good configuration cannot be used."""


class OtherCopyError(CopyError):
    """The copy belongs to another configuration."""


@dataclass(frozen=True)
class Loaded:
    """A configuration for startup, and the files that it was read from.

    `problems` are the mistakes in the files on the disk. When there are any, it is the last good configuration, which was
    loaded at `loaded_at`.
    """

    config: Config
    files: Files
    problems: tuple[Problem, ...] = ()
    loaded_at: datetime | None = None


def load_to_start(path: str, is_strict: bool) -> Loaded:
    """Return the configuration at `path`. When it has mistakes, return the last good one, unless `is_strict`.

    Raise ConfigError with the mistakes when there is no copy that can be used. The reason is logged.
    """
    path, files = os.path.abspath(path), Files()
    try:
        config = load(path, files)
        if is_strict and config.skipped:
            raise ConfigError(list(config.skipped))
        return Loaded(config, files)
    except ConfigError as error:
        found = None if is_strict else _last_good(path, files, error)
        if found is None:
            raise
        return found


def keep(config: Config, files: Files, state_dir: str, now: datetime) -> None:
    """Store the files of `config` as the copy in `state_dir`, atomically. Raise OSError or CopyError."""
    folder = os.path.join(state_dir, FOLDER)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    os.close(_open_folder(folder))
    text = json.dumps(_record(config.path, files.contents, now), separators=(",", ":"))
    if len(text) > LARGEST_COPY:
        raise CopyError(f"it is larger than {LARGEST_COPY // 1024 // 1024} MiB")
    path = os.path.join(folder, NAME)
    write_private(path, text)
    fsync_folder(folder)
    fsync_folder(state_dir)
    for other in _usual_state_dirs():
        if not _is_same(other, state_dir):
            _remove_outdated(other, config.path)


def _last_good(path: str, files: Files, mistakes: ConfigError) -> Loaded | None:
    for state_dir, is_named in _state_dirs(path, files):
        try:
            record = _read(os.path.join(state_dir, FOLDER), path)
            copied = CopiedFiles(_contents(record))
            loaded_at = datetime.fromisoformat(record["loaded_at"])
            found = Loaded(load(path, copied), copied, tuple(mistakes.problems), loaded_at)
        except FileNotFoundError:
            continue
        except (OtherCopyError, PermissionError) as error:
            if not is_named:  # another daemon's
                continue
            why = str(error)
        except ConfigError as error:
            why = f"this version finds mistakes in it: {error.problems[0]}"
        except (CopyError, OSError) as error:
            why = str(error)
        else:
            for problem in mistakes.problems:
                log.error("%s", problem)
            log.error(
                "the last good configuration is used, that of %s: mend these mistakes, and reload", record["loaded_at"]
            )
            return found
        log.error("the last good configuration, in %s, cannot be used: %s", os.path.join(state_dir, FOLDER), why)
    return None


def _state_dirs(path: str, files: Files) -> Iterator[tuple[str, bool]]:
    """Yield the folders in which the copy may be, and whether the invalid file itself names the folder."""
    named = _named_state_dir(files.contents.files.get(path, b""))
    places = dict.fromkeys([*([named] if named else []), *_usual_state_dirs()])
    for each in places:
        yield os.path.normpath(os.path.join(os.path.dirname(path), os.path.expanduser(each))), each == named


def _named_state_dir(data: bytes) -> str | None:
    """Return the `state_dir` of a file that may be invalid YAML: from a line of its own, or else from the parsed file."""
    line = _STATE_DIR.search(data.decode("utf-8", "replace"))
    if line is not None or b"state_dir" not in data:
        return line and _unquoted(line[1].strip())
    with suppress(ConfigError):
        value = Document("", data).value
        named = value.get("state_dir") if isinstance(value, Mapping) else None
        return named if isinstance(named, str) else None
    return None


def _unquoted(text: str) -> str | None:
    """Return a scalar of one line without quotes and comment, or None."""
    if text.startswith(("'", '"')):
        return text[1:].partition(text[0])[0] or None
    return text.partition("#")[0].strip() or None


def _usual_state_dirs() -> list[str]:
    """Return the state directories of a file that names none, or that cannot be read."""
    return [*filter(None, os.environ.get(STATE_VARIABLE, "").split(":")), str(TOP["state_dir"].default)]


def _is_same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _remove_outdated(state_dir: str, path: str) -> None:
    """Remove a copy of the same configuration from a former state directory."""
    folder = os.path.join(state_dir, FOLDER)
    with suppress(OSError, CopyError):
        opened = _open_folder(folder)
        try:
            _checked(_content(opened), path)
            os.unlink(NAME, dir_fd=opened)
        finally:
            os.close(opened)


def _record(path: str, contents: Contents, now: datetime) -> dict[str, Any]:
    record = {
        "format": FORMAT,
        "version": __version__,
        "path": path,
        "loaded_at": to_text(now),
        "files": {name: data.decode("utf-8", "surrogateescape") for name, data in contents.files.items()},
        "matches": contents.matches,
    }
    return {**record, "sha256": _digest(record)}


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _contents(record: Mapping[str, Any]) -> Contents:
    files = {name: text.encode("utf-8", "surrogateescape") for name, text in record["files"].items()}
    return Contents(files, record["matches"])


def _read(folder: str, path: str) -> dict[str, Any]:
    """Return the copy in a folder. Raise OSError, or CopyError when it is not trusted or not a copy of the file `path`."""
    opened = _open_folder(folder)
    try:
        return _checked(_content(opened), path)
    finally:
        os.close(opened)


def _content(opened: int) -> bytes:
    """Return the bytes of the copy in an open folder. Raise OSError or CopyError."""
    descriptor = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=opened)
    with open(descriptor, "rb") as file:
        _check_owner(os.fstat(descriptor), NAME)
        return file.read(LARGEST_COPY + 1)


def _checked(data: bytes, path: str) -> dict[str, Any]:
    try:
        record = json.loads(data)
        version, form = record["version"], record["format"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise CopyError("it is damaged") from None
    if form != FORMAT:
        raise CopyError(f"schedulerd {version} has written it, in a format that this version does not read")
    if record.pop("sha256", None) != _digest(record):
        raise CopyError("it is damaged")
    if record["path"] != path:
        raise OtherCopyError(f"it is of the configuration {record['path']}")
    return record  # type: ignore[no-any-return]


def _open_folder(folder: str) -> int:
    """Return a descriptor of a folder that only the daemon's user can change. Raise OSError or CopyError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_owner(os.fstat(descriptor), folder)
    except CopyError:
        os.close(descriptor)
        raise
    return descriptor


def _check_owner(found: os.stat_result, name: str) -> None:
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CopyError(f"{name} (owner uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}) can be changed by others")
