"""Text of others on a line of ours: what would begin a new line or steer a terminal is written out (CWE-117, CWE-150).

These are the control characters, the line and paragraph separators of Unicode, and the marks that turn the direction of
writing, with which a text can be made to look like another one.
"""

from __future__ import annotations

_WIDE = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_WRITTEN = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), 127, *range(128, 160))}
_WRITTEN |= {code: f"\\u{code:04x}" for code in _WIDE}


def escaped(text: str) -> str:
    """Return text with all of them written out but tabs and newlines."""
    return text if text.isascii() and text.isprintable() else text.translate(_WRITTEN)


def one_line(text: str) -> str:
    """Return text as one line."""
    return escaped(text).replace("\n", "\\n")
