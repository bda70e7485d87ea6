"""Figures over samples."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(samples: Sequence[float], percent: float) -> float | None:
    """Return the smallest sample that at least `percent` of 100 are not above (nearest rank), or None without samples."""
    if not samples:
        return None
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def percentile_of_classes(classes: Sequence[tuple[float, int]], percent: float) -> float | None:
    """Return the same of samples that were counted in classes: (upper bound, number), ascending."""
    rank = max(1, math.ceil(percent / 100 * sum(number for _, number in classes)))
    for upto, number in classes:
        rank -= number
        if rank <= 0:
            return upto
    return None
