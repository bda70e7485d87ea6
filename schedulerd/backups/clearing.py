"""Remove a folder with its contents, also where its mode forbids that to its owner.

No link is followed and no call blocks: another user may change the folder at the same time.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ..host.files import FOLDER_FLAGS


def remove_tree(name: str, dir_fd: int) -> None:
    """Remove the folder `name` of an open folder. Raise OSError: NotADirectoryError for what is none.

    What was unpacked in it may have folders that nobody may write in, or look into: who is not root opens them first.
    """
    here = _opened(name, dir_fd)
    try:
        for each in os.listdir(here):
            try:
                os.unlink(each, dir_fd=here)
            except IsADirectoryError:
                remove_tree(each, here)
    finally:
        os.close(here)
    os.rmdir(name, dir_fd=dir_fd)


def _opened(name: str, dir_fd: int) -> int:
    """Return a descriptor of a folder in which its owner may remove what is there."""
    place = os.open(name, os.O_PATH | FOLDER_FLAGS, dir_fd=dir_fd)
    try:
        if os.fstat(place).st_mode & 0o700 != 0o700:
            with suppress(PermissionError):
                os.chmod(f"/proc/self/fd/{place}", 0o700)  # O_PATH has no fchmod(2)
        return os.open(".", FOLDER_FLAGS, dir_fd=place)
    finally:
        os.close(place)
