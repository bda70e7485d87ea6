"""The Markdown pages of the project: their code blocks, links and headings."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "tests" / "security" / "README.md"],
    key=lambda page: page.relative_to(ROOT).as_posix(),
)
_FENCED = re.compile(r"^( *)```([a-z]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    """Return a page's path below the project."""
    return page.relative_to(ROOT).as_posix()


def code(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return [textwrap.dedent(text) for _, found, text in _FENCED.findall(page.read_text()) if found == language]


def prose(page: Path) -> str:
    """Return a page without its code blocks, each replaced by as many empty lines."""
    return _FENCED.sub(lambda block: "\n" * block[0].count("\n"), page.read_text())


def inline_code(page: Path) -> list[str]:
    """Return what is between backticks in the prose of a page."""
    return re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"\s*\n\s*", " ", prose(page)))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    texts = [re.sub(r"\[(.+?)\]\(.+?\)", r"\1", each).strip().lower() for each in headings]
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


def links(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links and pictures."""
    text = re.sub(r"(?<!`)`[^`]+`(?!`)", "", prose(page))
    yield from re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)
