"""The files of a configuration: those on the disk, or a copy of their contents.

The loader reads all files through this module, so that the contents are known and can be stored as a copy.
"""

from __future__ import annotations

import glob
import os
import stat
from dataclasses import dataclass, field

from ..core.errors import ConfigError, Problem
from ..host.trust import trusted, why_replaceable, why_untrusted

LARGEST_FILE = 4 * 1024 * 1024  # bytes
LARGEST_SUM = 16 * 1024 * 1024  # of all YAML files
LARGEST_CALENDAR = 4 * 1024 * 1024


@dataclass
class Contents:
    """The content of each file that was read, and the paths that matched each pattern. Paths are absolute."""

    files: dict[str, bytes] = field(default_factory=dict)
    matches: dict[str, list[str]] = field(default_factory=dict)


class Files:
    """Reads from the disk, and stores in `contents` what was read."""

    is_copy = False

    def __init__(self) -> None:
        self.contents = Contents()
        self._sum = 0  # bytes of YAML

    def yaml(self, path: str) -> bytes:
        """Return the content of a regular file that only its owner can change. Raise ConfigError otherwise."""
        data = self._remember(path, LARGEST_FILE, is_trusted=True)
        if self._sum + len(data) > LARGEST_SUM:
            raise _mistake(path, f"is, together with the files before it, larger than {LARGEST_SUM // 1024 // 1024} MiB")
        self._sum += len(data)
        return data

    def calendar(self, path: str) -> bytes:
        """Return the content of a regular file that other users may change, too. Raise ConfigError otherwise."""
        return self._remember(path, LARGEST_CALENDAR, is_trusted=False)

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that match a pattern, sorted."""
        found = self.contents.matches[pattern] = sorted(glob.glob(pattern))
        return found

    def _remember(self, path: str, largest: int, is_trusted: bool) -> bytes:
        found = self.contents.files[path] = _read(path, largest, is_trusted)
        return found


class CopiedFiles(Files):
    """Reads from a copy, never from the disk."""

    is_copy = True

    def __init__(self, contents: Contents) -> None:
        super().__init__()
        self.contents = contents

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that matched a pattern when the copy was made."""
        return self.contents.matches.get(pattern, [])

    def _remember(self, path: str, largest: int, is_trusted: bool) -> bytes:
        try:
            return self.contents.files[path]
        except KeyError:
            raise _mistake(path, "is not in the copy") from None


def unreadable(error: OSError) -> str:
    """Return why a file or folder of the configuration cannot be read, and the way out."""
    text = f"cannot be read: {error.strerror}"
    if isinstance(error, PermissionError):
        text += f" (by uid {os.geteuid()}: allow a group of that user to read it, but no others)"
    return text


def _read(path: str, largest: int, is_trusted: bool) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise _mistake(path, "is not a regular file")
            if is_trusted and (why := why_untrusted(path, trusted(), file.fileno())):
                raise _mistake(path, why)
            if not is_trusted and (why := _why_led(path, found, file.fileno())):
                raise _mistake(path, why)
            data = file.read(largest + 1)
    except OSError as error:
        raise _mistake(path, unreadable(error)) from None
    if len(data) > largest:
        raise _mistake(path, f"is larger than {largest // 1024 // 1024} MiB")
    return data


def _why_led(path: str, found: os.stat_result, descriptor: int) -> str | None:
    """Return why a calendar is not read: other users can change a link that leads to a file of root or the daemon."""
    if os.readlink(f"/proc/self/fd/{descriptor}") == os.path.abspath(path) or found.st_uid not in trusted():
        return None
    why = why_replaceable(path, trusted())
    return f"leads through a link that others can change: {why}" if why else None


def _mistake(path: str, text: str) -> ConfigError:
    return ConfigError([Problem(path, 1, 1, "", text)])
