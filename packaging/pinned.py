"""Read the lists of pinned versions that `make pins` writes (requirements files of pip, as uv writes them)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
RUNTIME, BUILD = HERE / "pinned.txt", HERE / "pinned-build.txt"
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)(?:\s*;\s*([^\\]*?))?\s*\\?")
HASH = re.compile(r"\s+--hash=sha256:([0-9a-f]{64})\s*\\?")
VIA = re.compile(r"\s+#\s+(?:via\s*)?(\S.*)?")


@dataclass(frozen=True)
class Pin:
    """A package at one version, the environments that need it (`marker`, empty: all), and the packages that do (`via`)."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    via: tuple[str, ...]


def read(path: Path) -> list[Pin]:
    """Return the pins of a list. Raise ValueError for any other line, for example an index or an option."""
    blocks: list[tuple[re.Match[str], list[str], list[str]]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := PIN.fullmatch(line):
            blocks.append((found, [], []))
        elif blocks and (found := HASH.fullmatch(line)):
            blocks[-1][1].append(found[1])
        elif blocks and (found := VIA.fullmatch(line)):
            blocks[-1][2].extend([found[1].split()[0]] if found[1] else [])
        elif line and not line.startswith("#"):
            raise ValueError(f"{path}:{number}: neither a pinned version nor its hash: {line}")
    return [Pin(found[1], found[2], found[3] or "", tuple(hashes), tuple(via)) for found, hashes, via in blocks]
