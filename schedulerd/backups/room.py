"""Is there room for a backup? Asked before, because a disk that a backup fills stops more than the backup."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .codec import is_wrapped
from .entry import Entry
from .source import BackupError, Order
from .sources import KINDS

GROWTH = 1.1  # a backup may be that much larger than the one before


def check_room(order: Order, needed: int) -> None:
    """Raise BackupError when the folder has no room for `needed` bytes more and `min_free` beside it."""
    space = os.statvfs(order["directory"])
    free = space.f_bavail * space.f_frsize
    if free < needed + order["min_free"]:
        raise BackupError(
            f"{order['directory']} has {free} bytes free: about {needed} are needed there, and {order['min_free']} "
            "are to stay free (min_free)"
        )


def expected_bytes(order: Order, earlier: Sequence[Entry]) -> int:
    """Return how many bytes making a backup will take, by the last good one, or by what is known of the source.

    A wrapped one is there twice while it is made: as the source gives it, and as it is kept. What the source says is too
    much rather than too little, so nothing is asked when nothing is to stay free.
    """
    last = next((each.manifest for each in earlier if each.is_good), None)
    if last is not None:
        return int(GROWTH * (last.content_size_bytes + (last.size_bytes if is_wrapped(order) else 0)))
    return _size_of_source(order) * (2 if is_wrapped(order) else 1) if order["min_free"] else 0


def _size_of_source(order: Order) -> int:
    try:
        return KINDS[order["kind"]].size(order)
    except BackupError as error:  # it may forbid this alone; what else is wrong, the copy will tell
        sys.stderr.write(f"the size of the source is not known: {error}\n")
        return 0
