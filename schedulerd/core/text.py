"""Text in messages: values shown short and on one line, guesses at misspelt words, and control characters written out.

What is written out would begin a new line or steer a terminal (CWE-117, CWE-150): the control characters, the line and
paragraph separators of Unicode, and the marks that turn the direction of writing, with which a text can be made to look
like another one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

NEAREST = 5  # known words that are looked at when one is unknown
LONGEST_WORD = 100  # characters of an unknown word for which that is done
_WIDE = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_WRITTEN = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), 127, *range(128, 160))}
_WRITTEN |= {code: f"\\u{code:04x}" for code in _WIDE}


def shown(value: Any) -> str:
    """Return `value` as an error shows it: short, and on one line."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "…"


def hidden(value: Any) -> str:
    """Return `value` as an error tells of what may be a secret, or a place where one was put by mistake."""
    if isinstance(value, str):
        return f"a text of {len(value)} characters" if value else "an empty text"
    return "a number" if isinstance(value, (int, float)) and not isinstance(value, bool) else shown(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known word nearest to `word`, or nothing.

    Of those that are near, one with as many parts comes first: `retry` is meant as `retries`, not as `retry_on`.
    """
    if not word or len(word) > LONGEST_WORD:
        return ""
    near = difflib.get_close_matches(word, list(known), NEAREST)
    near.sort(key=lambda each: each.count("_") != word.count("_"))
    return f" (did you mean {near[0]!r}?)" if near else ""


def escaped(text: str) -> str:
    """Return text with all of them written out but tabs and newlines."""
    return text if text.isascii() and text.isprintable() else text.translate(_WRITTEN)


def one_line(text: str) -> str:
    """Return text as one line."""
    return escaped(text).replace("\n", "\\n")
