"""Output of jobs on a terminal: control characters are shown and not obeyed, as cat(1) with -v and less(1) do.

A job's output may carry escape sequences that set the title of a terminal, clear it, or make it answer as if somebody had
typed (CWE-150). Newlines and tabs pass; colours (SGR sequences, ECMA-48 section 8.3.117) pass when they are asked for.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from enum import StrEnum

RESET = b"\x1b[0m"
_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,64}m")
_BEGUN = re.compile(r"\x1b(\[[0-9;:]{0,64})?\Z")  # of a colour, at the end of a piece
_PASSES = "\n\t"


class Controls(StrEnum):
    """What becomes of control characters."""

    SHOW = "show"
    COLOUR = "colour"  # all but colours are shown
    RAW = "raw"  # all are passed on


def visible(text: str) -> str:
    """Return text with its control and format characters written out: `^[` for ESC, `<U+202E>` for what has no caret."""
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char in _PASSES or char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    number = ord(char)
    return f"^{chr(number ^ 0x40)}" if number < 0x80 else f"<U+{number:04X}>"


class TerminalText:
    """Turns a stream of bytes, in whatever pieces it comes, into what a terminal may be given.

    Bytes that are no UTF-8 are written as `\\xff`; a carriage return before a newline is dropped.
    """

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""  # the beginning of a sequence of which the rest is to come
        self._is_coloured = False

    def feed(self, data: bytes) -> bytes:
        """Return what is to be written for the next piece."""
        if self._controls is Controls.RAW:
            return data
        return self._passed(self._held + self._decoder.decode(data), is_end=False)

    def end(self) -> bytes:
        """Return what is to be written when there are no more pieces."""
        rest = self._passed(self._held + self._decoder.decode(b"", final=True), is_end=True)
        return rest + (RESET if self._is_coloured else b"")

    def _passed(self, text: str, is_end: bool) -> bytes:
        begun = None if is_end else self._begun(text)
        text, self._held = (text[: begun.start()], begun.group()) if begun is not None else (text, "")
        text = text.replace("\r\n", "\n")
        if self._controls is not Controls.COLOUR:
            return visible(text).encode()
        colours = _COLOUR.findall(text)
        self._is_coloured = self._is_coloured or bool(colours)
        parts = [visible(part) for part in _COLOUR.split(text)]
        return "".join(part + colour for part, colour in zip(parts, [*colours, ""], strict=True)).encode()

    def _begun(self, text: str) -> re.Match[str] | None:
        found = re.search(r"\r\Z", text)
        return found or (_BEGUN.search(text) if self._controls is Controls.COLOUR else None)
