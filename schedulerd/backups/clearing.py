"""Remove a folder with all that is in it, also where it forbids that to its own owner."""

from __future__ import annotations

import os
import shutil
import stat


def remove_tree(name: str, dir_fd: int) -> None:
    """Remove the folder `name` of an open folder. Raise OSError.

    What was unpacked in it may have folders that nobody may write in, or look into: who is not root opens them first.
    """
    try:
        shutil.rmtree(name, dir_fd=dir_fd)
    except PermissionError:
        _open_folders(name, dir_fd)
        shutil.rmtree(name, dir_fd=dir_fd)


def _open_folders(name: str, dir_fd: int) -> None:
    for _, folders, _, here in os.fwalk(name, dir_fd=dir_fd):  # one that was just opened is walked, too
        for each in folders:
            if stat.S_ISDIR(os.stat(each, dir_fd=here, follow_symlinks=False).st_mode):
                os.chmod(each, 0o700, dir_fd=here)
