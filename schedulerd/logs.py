"""Logging to stderr, one line a record: with a time in a terminal, with a priority prefix in the journal (sd-daemon(3))."""

from __future__ import annotations

import logging
import os
import sys

LEVELS = ("debug", "info", "warning", "error")
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), 127, *range(128, 160))}
_CONTROL |= {0x2028: "\\u2028", 0x2029: "\\u2029"}
LONGEST = 8000  # characters of one record


class _OneLine(logging.Formatter):
    """Escapes control characters, so that what a job printed cannot forge a record (CWE-117)."""

    def __init__(self, in_journal: bool) -> None:
        super().__init__("%(message)s" if in_journal else "%(asctime)s %(levelname)-7s %(message)s")
        self._in_journal = in_journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if len(text) > LONGEST:
            text = text[:LONGEST] + "…"
        text = text.translate(_CONTROL)
        if record.exc_info is None:
            text = text.replace("\n", "\\n")
        if self._in_journal:
            prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
            text = "\n".join(prefix + line for line in text.split("\n"))
        return text


def _without_traceback(record: logging.LogRecord) -> bool:
    """Tell of a request that is no HTTP in one line: anybody can send one, and must not fill the log.

    A caller who goes away while they are answered is nothing to tell of.
    """
    if record.exc_info and isinstance(record.exc_info[1], ConnectionResetError):
        return False
    if record.exc_info and record.exc_info[1] is not None:
        record.msg, record.args = "a bad request: %s", (type(record.exc_info[1]).__name__,)
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


def set_up(level: str = "info") -> None:
    """Send all records of `level` and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(in_journal="JOURNAL_STREAM" in os.environ))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.server").addFilter(_without_traceback)
    logging.getLogger("schedule").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
