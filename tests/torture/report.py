"""What came of a campaign, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from tests.torture.campaign import Outcome
from tests.torture.judge import FAULTS

SHORT = {"SILENT_MISS": "SILENT", "LOST_ROW": "LOST", "FALSE_NEVER_STARTED": "FALSE_NEVER"}


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a line for each nemesis or pair, and one for all."""
    names = ["nemeses", "rounds", "due", "starts", "rows", *(SHORT.get(kind, kind) for kind in FAULTS), "exits"]
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.round.label, []).append(outcome)
    lines = [names, *([label, *_figures(of_it)] for label, of_it in found.items()), ["all", *_figures(outcomes)]]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    return "\n".join(_line(line, widths) for line in lines)


def told(outcome: Outcome, most: int = 5) -> str:
    """Return a round in a line, with its first faults below."""
    verdict = outcome.verdict
    words = f"{outcome.round.label}: {verdict.due} due, {verdict.starts} starts, settled after {outcome.settled_after:.0f} s"
    lines = [
        words + (f", {len(verdict.faults)} FAULTS, seed {outcome.round.seed}: {outcome.evidence}" if verdict.faults else "")
    ]
    lines += [f"    {fault}" for fault in verdict.faults[:most]]
    return "\n".join(lines)


def _figures(outcomes: Sequence[Outcome]) -> list[str]:
    verdicts = [outcome.verdict for outcome in outcomes]
    numbers = [len(outcomes), sum(each.due for each in verdicts), sum(each.starts for each in verdicts)]
    numbers += [sum(each.rows for each in verdicts), *(sum(each.count(kind) for each in verdicts) for kind in FAULTS)]
    numbers.append(sum(len(outcome.exits) for outcome in outcomes))
    return list(map(str, numbers))


def _line(words: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(words, widths, strict=True)
    return first[0].ljust(first[1]) + "".join(f"  {word.rjust(width)}" for word, width in others)
