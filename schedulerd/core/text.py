"""Text in messages: short quotes of values, suggestions for misspelled words, and escaping of control characters.

Escaped are characters that begin a new line or control a terminal (CWE-117, CWE-150): control characters, Unicode line
and paragraph separators, and the marks that change the direction of writing and so can disguise a text.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

NEAREST = 5  # known words that are compared with an unknown one
LONGEST_WORD = 100  # characters: there is no suggestion for a longer unknown word
_WIDE = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_WRITTEN = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), 127, *range(128, 160))}
_WRITTEN |= {code: f"\\u{code:04x}" for code in _WIDE}


def shown(value: Any) -> str:
    """Return `value` as error messages quote it: short and on one line."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "…"


def hidden(value: Any) -> str:
    """Return a description of `value` for error messages where the value may be a secret."""
    if isinstance(value, str):
        return f"a text of {len(value)} characters" if value else "an empty text"
    return "a number" if isinstance(value, (int, float)) and not isinstance(value, bool) else shown(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` with the known word nearest to `word`, or an empty text.

    Among near words, one with the same number of underscores is preferred: `retry` suggests `retries`, not `retry_on`.
    """
    if not word or len(word) > LONGEST_WORD:
        return ""
    near = difflib.get_close_matches(word, list(known), NEAREST)
    near.sort(key=lambda each: each.count("_") != word.count("_"))
    return f" (did you mean {near[0]!r}?)" if near else ""


def escaped(text: str) -> str:
    """Return text with these characters escaped, except tabs and newlines."""
    return text if text.isascii() and text.isprintable() else text.translate(_WRITTEN)


def one_line(text: str) -> str:
    r"""Return text on one line: escaped, with newlines written as `\n`."""
    return escaped(text).replace("\n", "\\n")
