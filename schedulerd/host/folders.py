"""Make a folder where nobody but trusted users could lead us elsewhere; see `host/trust.py`."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress

from .trust import why_replaceable

ABOVE = 0o755  # the mode of a folder above: who may use the one that is meant must get there
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_folders(path: str, mode: int, users: Collection[int]) -> str | None:
    """Make a folder, and those above it that are not there; return why not, when others could lead us elsewhere.

    No link is followed below what was there. Raise OSError with the whole path.
    """
    missing: list[str] = []
    here = os.path.abspath(path)
    while not os.path.lexists(here):
        here, name = os.path.split(here)
        missing.insert(0, name)
    if not missing:
        return None
    if why := why_replaceable(os.path.join(here, missing[0]), users):
        return why
    descriptor = os.open(here, FOLDER & ~os.O_NOFOLLOW)
    try:
        for name in missing:
            here = os.path.join(here, name)
            below = _made(name, mode if here == os.path.abspath(path) else ABOVE, descriptor)
            os.close(descriptor)
            descriptor = below
    except OSError as error:
        error.filename = here
        raise
    finally:
        os.close(descriptor)
    return None


def _made(name: str, mode: int, folder: int) -> int:
    """Return a descriptor of a folder in an open one, which is made when it is not there."""
    with suppress(FileExistsError):  # somebody was quicker: who opens it looks whose it is
        os.mkdir(name, mode, dir_fd=folder)
    return os.open(name, FOLDER, dir_fd=folder)
