"""Durations and sizes in the notation of the configuration: `90`, `90s`, `10m`, `1h30m`, `1d12h`; `512K`, `10M`, `2G`."""

from __future__ import annotations

import re

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
BYTES = {"": 1, "B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}

LONGEST = 100 * 365.25 * 86400  # seconds

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([BKMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_duration(value: object) -> float:
    """Return the seconds of a number or of a text such as `1h30m`.

    Raise ValueError when it is neither, or longer than 100 years.
    """
    seconds = _seconds(value)
    if seconds > LONGEST:
        raise ValueError("a duration is at most 100 years")
    return seconds


def _seconds(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(min(value, 2 * LONGEST))
    text = str(value).strip() if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise ValueError("a duration is seconds (90) or a text such as 90s, 10m, 1h30m, 1d, 2w")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def parse_size(value: object) -> int:
    """Return the bytes of an integer or of a text such as `10M` (powers of 1024). Raise ValueError otherwise."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a size is bytes (4096) or a text such as 512K, 10M, 2G")
    return int(float(match[1]) * BYTES[match[2].upper()])


def format_size(size: int) -> str:
    """Return bytes in the notation of `parse_size`, in the largest unit without a fraction: `512M`, `1536K`, `1000`."""
    unit = next((unit for unit in "TGMK" if size and size % BYTES[unit] == 0), "")
    return f"{size // BYTES[unit]}{unit}"


def counted(number: int, thing: str) -> str:
    """Return `1 job`, `2 jobs`."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def format_duration(seconds: float) -> str:
    """Return `seconds` for display, with at most two units: `1h 30m`, `4.2s`, `35ms`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    parts = []
    rest = int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
