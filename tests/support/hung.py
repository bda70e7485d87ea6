"""A file system that hangs, as a network's does whose server is gone: FUSE (fuse(4)) with nobody who answers."""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_fuse = pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="no FUSE here")
DETACH = 2  # MNT_DETACH, umount2(2)

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def hung_mount(path: Path) -> Iterator[Callable[[], None]]:
    """Mount it at `path`; lends what lets all who wait there go, with an error."""
    path.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if _libc.mount(b"hung", os.fsencode(path), b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    is_open = [device]

    def release() -> None:
        while is_open:
            os.close(is_open.pop())  # the connection ends with its server

    try:
        yield release
    finally:
        release()
        _libc.umount2(os.fsencode(path), DETACH)
