"""The jobs of a round: of several kinds, most of them due every second, all of the program `mark`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.torture.oracle import Once, Rule, Steps

EACH_SECOND = Steps(1)


@dataclass(frozen=True)
class Work:
    """A job: its settings without the program, and what the judge knows of it."""

    job_id: str
    settings: dict[str, Any]
    rule: Rule | None = EACH_SECOND  # None: it is due after other jobs
    milliseconds: int = 0
    exits: str = "ok"
    follows: str | None = None
    flows: bool = False  # it follows elapsed time: when the clock is set back, it goes on
    extra: dict[str, Any] = field(default_factory=dict)

    def config(self, program: Path, books: Path, shift: Path) -> dict[str, Any]:
        """Return it as a configuration names it."""
        words = [str(program), str(books / self.job_id), str(shift), str(self.milliseconds), self.exits]
        return {**self.settings, "command": words}


Kind = Callable[[str, float], Work]

CATCHES_UP = {"catch_up": "all", "catch_up_spacing": "0s", "catch_up_limit": 1000}
KINDS: dict[str, Kind] = {
    "cron-latest": lambda name, _at: Work(name, {"cron": "* * * * * *"}, flows=True),
    "cron-all": lambda name, _at: Work(name, {"cron": "* * * * * *", **CATCHES_UP}, flows=True),
    "fixed-latest": lambda name, _at: Work(name, {"cron": "* 0-59 0-23 * * *"}),
    "fixed-all": lambda name, _at: Work(name, {"cron": "* 0-59 0-23 * * *", **CATCHES_UP}),
    "every-none": lambda name, _at: Work(name, {"every": "1s", "catch_up": "none", "misfire_grace": "2s"}, flows=True),
    "calendar": lambda name, _at: Work(name, {"calendar": "*-*-* *:*:*"}, flows=True),
    "rerun": lambda name, _at: Work(
        name, {"cron": "*/2 0-59 0-23 * * *", "on_abandoned": "rerun", "overlap": "queue", **CATCHES_UP},
        Steps(2), milliseconds=900,
    ),
    "skip": lambda name, _at: Work(name, {"every": "1s", "overlap": "skip"}, milliseconds=1300, flows=True),
    "queue": lambda name, _at: Work(name, {"every": "1s", "overlap": "queue"}, milliseconds=700, flows=True),
    "retry": lambda name, _at: Work(
        name, {"cron": "*/5 0-59 0-23 * * *", "retries": 2, "retry_delay": "500ms", **CATCHES_UP}, Steps(5), exits="flaky"
    ),
    "pair-a": lambda name, _at: Work(name, _paired(name), Steps(3), milliseconds=400),
    "pair-b": lambda name, _at: Work(name, _paired(name), Steps(3), milliseconds=400),
    "head": lambda name, _at: Work(name, {"cron": "*/2 0-59 0-23 * * *"}, Steps(2)),
    "tail": lambda name, _at: Work(
        name, {"after": {"job": name.replace("tail", "head"), "when": "success"}, "overlap": "queue"}, None,
        follows=name.replace("tail", "head"),
    ),
    "once": lambda name, at: Work(name, {"at": _iso(at + _number(name) % 16)}, Once((int(at) + _number(name) % 16,))),
}  # fmt: skip
A_SET = 10.4  # occurrences of one of each in a second


def jobs_of(rate: float, begin: float) -> dict[str, Work]:
    """Return jobs that are due `rate` times a second together; those that are due once, from `begin` on."""
    sets = max(1, round(rate / A_SET))
    names = [(kind, f"{kind}-{number}") for number in range(sets) for kind in KINDS]
    return {name: KINDS[kind](name, begin) for kind, name in names}


def _number(name: str) -> int:
    return int(name.rsplit("-", 1)[1])


def _paired(name: str) -> dict[str, Any]:
    """Return the settings of two jobs of which one always waits for the other."""
    return {"cron": "*/3 0-59 0-23 * * *", "mutex": f"pair-{_number(name)}", "overlap": "queue", **CATCHES_UP}


def _iso(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).isoformat().replace("+00:00", "Z")
