"""Output of jobs on a terminal: control characters are shown as text, as cat(1) with -v and less(1) do.

The output of a job may contain escape sequences that set the title of a terminal, clear it, or make it send input as if a
user had typed (CWE-150). Newlines and tabs are passed through; colours (SGR sequences, ECMA-48 section 8.3.117) on request.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from enum import StrEnum

RESET = b"\x1b[0m"
_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,64}m")
_INCOMPLETE_COLOUR = re.compile(r"\x1b(\[[0-9;:]{0,64})?\Z")  # at the end of a piece
_PASSED_THROUGH = "\n\t"


class Controls(StrEnum):
    """How control characters are written."""

    SHOW = "show"  # as text
    COLOUR = "colour"  # colours are passed through, all others are shown
    RAW = "raw"  # all are passed through


def visible(text: str) -> str:
    """Return text with control and format characters in visible form: `^[` for ESC, `<U+202E>` for U+202E."""
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char in _PASSED_THROUGH or char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    number = ord(char)
    return f"^{chr(number ^ 0x40)}" if number < 0x80 else f"<U+{number:04X}>"


class TerminalText:
    r"""Turns a stream of bytes into text that is safe for a terminal. The pieces may be divided anywhere.

    Bytes that are not UTF-8 are written as `\xff`. A carriage return before a newline is removed.
    """

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._incomplete = ""  # the beginning of a sequence that the next piece continues
        self._is_coloured = False

    def feed(self, data: bytes) -> bytes:
        """Return what to write for the next piece."""
        if self._controls is Controls.RAW:
            return data
        return self._convert(self._incomplete + self._decoder.decode(data), is_end=False)

    def end(self) -> bytes:
        """Return what to write after the last piece."""
        rest = self._convert(self._incomplete + self._decoder.decode(b"", final=True), is_end=True)
        return rest + (RESET if self._is_coloured else b"")

    def _convert(self, text: str, is_end: bool) -> bytes:
        incomplete = None if is_end else self._incomplete_end(text)
        text, self._incomplete = (text[: incomplete.start()], incomplete.group()) if incomplete is not None else (text, "")
        text = text.replace("\r\n", "\n")
        if self._controls is not Controls.COLOUR:
            return visible(text).encode()
        colours = _COLOUR.findall(text)
        self._is_coloured = self._is_coloured or bool(colours)
        parts = [visible(part) for part in _COLOUR.split(text)]
        return "".join(part + colour for part, colour in zip(parts, [*colours, ""], strict=True)).encode()

    def _incomplete_end(self, text: str) -> re.Match[str] | None:
        found = re.search(r"\r\Z", text)
        return found or (_INCOMPLETE_COLOUR.search(text) if self._controls is Controls.COLOUR else None)
