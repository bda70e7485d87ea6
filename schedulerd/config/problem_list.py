"""The problems of a configuration, collected while it is read."""

from __future__ import annotations

from ..core.errors import ConfigError, Problem
from .fields import Path, Report
from .yaml import MOST_MISTAKES, Document


class TooManyMistakesError(ConfigError):
    """A file has so many mistakes that the rest of it is not checked."""


class ProblemList:
    """The mistakes and warnings found so far, in all files."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    @property
    def mistakes(self) -> list[Problem]:
        """Return the problems that make a configuration invalid, in the order in which they were found."""
        return [each for each in self.problems if not each.is_warning]

    @property
    def warnings(self) -> list[Problem]:
        """Return the other problems."""
        return [each for each in self.problems if each.is_warning]

    def reporter(self, document: Document) -> Report:
        """Return a function that adds mistakes of a file, and raises TooManyMistakesError after MOST_MISTAKES."""
        count = 0

        def report(path: Path, text: str) -> None:
            nonlocal count
            count += 1
            if count > MOST_MISTAKES:
                text = f"more than {MOST_MISTAKES} mistakes: correct the first ones"
                raise TooManyMistakesError([document.problem(path, text)])
            self.problems.append(document.problem(path, text))

        return report

    def warner(self, document: Document) -> Report:
        """Return a function that adds warnings about a file."""

        def warn(path: Path, text: str) -> None:
            self.problems.append(document.problem(path, text, is_warning=True))

        return warn
