"""What a run says of itself in its result file. TEMPORARY: another hand writes this file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

LARGEST = 65536


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a result file says so far."""

    progress: float | None = None
    message: str | None = None


def read_result(path: str) -> RunResult:
    """Return what a run has left; nothing when it has left nothing that can be read."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return RunResult()
    progress = value.get("progress") if isinstance(value, dict) else None
    if not isinstance(progress, (int, float)) or not math.isfinite(progress) or not 0 <= progress <= 1:
        return RunResult()
    return RunResult(float(progress))
