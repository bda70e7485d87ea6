"""Is there room for a backup? Asked before, because a disk that a backup fills stops more than the backup."""

from __future__ import annotations

import os
from collections.abc import Sequence

from . import BackupError, Order
from .catalogue import Entry
from .wrapping import is_wrapped

GROWTH = 1.1  # a backup may be that much larger than the one before


def check_room(order: Order, earlier: Sequence[Entry]) -> None:
    """Raise BackupError when the folder has no room for one more backup and `min_free` beside it."""
    needed = expected_bytes(order, earlier)
    space = os.statvfs(order["directory"])
    free = space.f_bavail * space.f_frsize
    if free < needed + order["min_free"]:
        raise BackupError(
            f"{order['directory']} has {free} bytes free: a backup needs about {needed} there, and {order['min_free']} "
            "are to stay free (min_free)"
        )


def expected_bytes(order: Order, earlier: Sequence[Entry]) -> int:
    """Return how many bytes making a backup will take, by the last good one, or by what is known of the source.

    A wrapped one is there twice while it is made: as the source gives it, and as it is kept.
    """
    last = next((each.manifest for each in earlier if each.is_good), None)
    if last is None:
        return os.path.getsize(path) if os.path.isfile(path := order["url"].removeprefix("sqlite://")) else 0
    return int(GROWTH * (last.content_size_bytes + (last.size_bytes if is_wrapped(order) else 0)))
