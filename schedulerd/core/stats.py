"""Percentiles of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(samples: Sequence[float], percent: float) -> float | None:
    """Return the nearest-rank percentile: the smallest sample that `percent` % do not exceed. None without samples."""
    if not samples:
        return None
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def percentile_of_classes(classes: Sequence[tuple[float, int]], percent: float) -> float | None:
    """Return the percentile of samples counted in classes, given as (upper bound, number) in ascending order."""
    rank = max(1, math.ceil(percent / 100 * sum(number for _, number in classes)))
    for upper, number in classes:
        rank -= number
        if rank <= 0:
            return upper
    return None
