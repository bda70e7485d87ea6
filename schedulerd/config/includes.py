"""The files that `include` names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from .fields import Path, Report
from .files import Files, unreadable
from .resolver import Resolver


def included_files(
    patterns: Iterable[str], files: Files, resolver: Resolver, report: Report, warn: Report
) -> list[str]:  # fmt: skip
    """Return the paths of the included files, each once, after reporting files and folders that are missing."""
    found: dict[str, None] = {}
    for index, pattern in enumerate(patterns):
        path: Path = ("include", index)
        names = files.matching(resolver.path(pattern))
        if not files.is_copy:
            _check_folder(pattern, resolver.path(pattern), path, report, warn)
        if not names and not glob.has_magic(pattern):
            report(path, f"file {pattern!r} does not exist")
        found.update(dict.fromkeys(names))
    return list(found)


def _check_folder(pattern: str, absolute: str, path: Path, report: Report, warn: Report) -> None:
    """Report a folder that cannot be read. Warn of files in it whose names end in .yml instead of .yaml."""
    folder = os.path.dirname(absolute)
    if not glob.has_magic(pattern) or glob.has_magic(folder) or not os.path.isdir(folder):
        return
    try:
        names = os.listdir(folder)
    except OSError as error:
        report(path, f"{folder} {unreadable(error)}")
        return
    left_out = sorted(name for name in names if name.endswith(".yml") and not name.startswith("."))
    if left_out and pattern.endswith("*.yaml"):
        warn(path, f"{', '.join(left_out)} in {folder} is not read: {pattern!r} matches names that end in .yaml")
