"""Reads settings of a job into the fields of `Job` about retries, misfires, overlaps and pools. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.concurrency import MUTEX
from ..core.text import did_you_mean
from .fields import Path, Report


def policy_of(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `Job` that come from the settings in POLICY without further checks."""
    return {
        "timeout_seconds": value["timeout"] or None,
        "kill_grace_seconds": value["kill_grace"],
        "overlap": value["overlap"],
        "max_instances": value["max_instances"],
        "retries": value["retries"],
        "retry_delay_seconds": value["retry_delay"],
        "retry_backoff": value["retry_backoff"],
        "retry_max_delay_seconds": value["retry_max_delay"],
        "retry_on": value["retry_on"],
        "reruns_abandoned": value["on_abandoned"] == "rerun",
        "deadline_seconds": value["deadline"] or None,
        "priority": value["priority"],
        "only_if": {name: float(each) for name, each in (value["only_if"] or {}).items() if each is not None},
        "only_if_within_seconds": value["only_if_within"],
        "catch_up": value["catch_up"],
        "misfire_grace_seconds": value["misfire_grace"],
        "catch_up_limit": value["catch_up_limit"],
        "catch_up_age_seconds": value["catch_up_age"],
        "catch_up_spacing_seconds": value["catch_up_spacing"],
        "success_exit_codes": value["success_exit_codes"],
    }


def limits_of(pools: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of slots of each pool, from `db: 4` or `db: {limit: 4}`."""
    return {name: each["limit"] or 1 if isinstance(each, Mapping) else each for name, each in pools.items()}


def uses_of(read: Mapping[str, Any], limits: Mapping[str, int], path: Path, report: Report) -> dict[str, int]:
    """Return how many slots of each pool a run holds, after reporting pools that do not exist or are too small.

    `limits` are the slots of all pools. A mutex is a pool with one slot that needs no definition.
    """
    uses: dict[str, int] = dict(read.get("uses") or {})
    if read.get("pool"):
        uses.setdefault(read["pool"], 1)
    for name, weight in uses.items():
        where: Path = (*path, "uses", name) if name in (read.get("uses") or {}) else (*path, "pool")
        if name not in limits:
            expected = f"one of {', '.join(limits)}" if limits else "one that pools: names"
            report(where, f"there is no pool {name!r}{did_you_mean(name, limits)}: expected {expected}")
        elif weight > limits[name]:
            report(where, f"{weight} of pool {name!r} can never be had: it has {limits[name]}")
    mutexes = read.get("mutex") or ()
    return uses | {MUTEX + name: 1 for name in ((mutexes,) if isinstance(mutexes, str) else mutexes)}
