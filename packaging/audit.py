"""Query OSV (osv.dev) for known vulnerabilities of the pinned versions.

    python3 packaging/audit.py [--url URL] [--list FILE]…

The exit status is 0 when none is known, 1 when one is, and 75 when OSV could not be queried: then the result is unknown.
packaging/accepted.txt lists vulnerabilities that were reviewed and are harmless here, one per line: the id and the reason.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pinned import BUILD, HERE, RUNTIME, Pin, read

URL = "https://api.osv.dev/v1/querybatch"
ACCEPTED = HERE / "accepted.txt"
SECONDS = 20
LARGEST_ANSWER = 1 << 24  # bytes
KNOWN, NOT_ASKED = 1, 75  # exit statuses


class NotAskedError(Exception):
    """OSV sent no response, or an invalid one."""


def ask(url: str, pins: Sequence[Pin]) -> dict[Pin, list[str]]:
    """Return the ids of the known vulnerabilities of each pin. Raise NotAskedError."""
    queries = [{"package": {"ecosystem": "PyPI", "name": pin.name}, "version": pin.version} for pin in pins]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            results = json.loads(answer.read(LARGEST_ANSWER))["results"]
        return {pin: _ids(result) for pin, result in zip(pins, results, strict=True)}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotAskedError(f"{type(error).__name__}: {error}") from error


def _ids(result: dict[str, Any]) -> list[str]:
    return [str(each["id"]) for each in result.get("vulns", [])]


def accepted(path: Path) -> frozenset[str]:
    """Return the ids that were reviewed. Raise ValueError for one without a reason."""
    lines = [line.split(None, 1) for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    if bare := [words[0] for words in lines if len(words) < 2]:
        raise ValueError(f"{path}: each id needs a reason beside it: {', '.join(bare)}")
    return frozenset(words[0] for words in lines)


def main() -> int:
    """Run the audit. Return the exit status."""
    parser = argparse.ArgumentParser(description="Ask OSV which vulnerabilities are known in the pinned versions.")
    parser.add_argument("--url", default=URL, help=f"what is asked ({URL})")
    parser.add_argument("--list", type=Path, action="append", help="a list of pinned versions (those beside this file)")
    parser.add_argument("--accepted", type=Path, default=ACCEPTED, help="ids that were looked at, each with a reason")
    given = parser.parse_args()
    pins = [pin for path in given.list or (RUNTIME, BUILD) for pin in read(path)]
    try:
        known = ask(given.url, pins)
    except NotAskedError as error:
        print(f"audit: NOT DONE: OSV could not be asked ({error}); nothing is known of these versions", file=sys.stderr)
        return NOT_ASKED
    passed = accepted(given.accepted)
    found = [(pin, each) for pin, ids in known.items() for each in ids]
    for pin, each in found:
        print(f"audit: {pin.name} {pin.version}: {each}{' (accepted)' if each in passed else ''}")
    bad = [each for _, each in found if each not in passed]
    print(f"audit: {len(pins)} versions, {len(bad)} known vulnerabilities, {len(found) - len(bad)} accepted ones")
    return KNOWN if bad else 0


if __name__ == "__main__":
    sys.exit(main())
