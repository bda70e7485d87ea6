"""What the jobs wrote down themselves (mark.c)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Start:
    """A start; `at` is what it was due at in seconds since 1970, `boot` and `wall` when it began, in seconds, too."""

    job_id: str
    run_id: str
    at: float | None
    attempt: int
    origin: str
    token: int
    pid: int
    boot: float
    wall: float


@dataclass(frozen=True, slots=True)
class End:
    """An end."""

    code: int
    boot: float


@dataclass
class Books:
    """All starts in the order of each job's book, and the ends by run."""

    starts: list[Start]
    ends: dict[str, End]


def read_books(folder: Path) -> Books:
    """Read all books; a line that is being written is left out."""
    books = Books([], {})
    for path in sorted(folder.iterdir()):
        for line in _lines(path):
            words = line.split()
            if words[0] == "S":
                books.starts.append(_start(words[1:]))
            else:
                books.ends[words[2]] = End(int(words[3]), int(words[4]) / 1e9)
    return books


def _lines(path: Path) -> Iterator[str]:
    yield from path.read_text().rpartition("\n")[0].splitlines()


def _start(words: list[str]) -> Start:
    job_id, run_id, at, attempt, origin, token, pid, boot, wall = words
    return Start(
        job_id, run_id, None if at == "-" else datetime.fromisoformat(at).timestamp(), int(attempt), origin,
        int(token) if token.isdigit() else 0, int(pid), int(boot) / 1e9, int(wall) / 1e9,
    )  # fmt: skip
