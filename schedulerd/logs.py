"""Logging: one line a record to stderr, or under systemd records with fields in the journal.

In the journal a record has the fields of systemd.journal-fields(7), and of ours JOB_ID and RUN_ID, when its message names
a job or run: `log.info("job %s: run %s …", …)`. So `journalctl JOB_ID=backup` finds them.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator

LEVELS = ("debug", "info", "warning", "error")
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), 127, *range(128, 160))}
_CONTROL |= {0x2028: "\\u2028", 0x2029: "\\u2029"}
LONGEST = 8000  # characters of one record
JOURNAL = "/run/systemd/journal/socket"
IDENTIFIER = "schedulerd"
_PLACE = re.compile(r"(?:\b(job|run) )?%[-+ #0]*[\d.*]*([a-zA-Z%])")  # of an argument of a message, with what it is


class _OneLine(logging.Formatter):
    """Escapes control characters, so that what a job printed cannot forge a record (CWE-117)."""

    def __init__(self, in_journal: bool, with_time: bool = True) -> None:
        super().__init__("%(message)s" if in_journal or not with_time else "%(asctime)s %(levelname)-7s %(message)s")
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


class Journal(logging.Handler):
    """Sends records to the journal by its protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), to stderr when it is away."""

    def __init__(self, path: str = JOURNAL) -> None:
        """Raise OSError when there is no journal."""
        super().__init__()
        self.setFormatter(_OneLine(in_journal=False, with_time=False))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.connect(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            self._socket.send(b"".join(_field(name, value) for name, value in self._fields(record)))
        except OSError:
            _to_stderr(in_journal=True).handle(record)
        except Exception:  # as every handler: a record that cannot be formatted is told on stderr, and costs nothing else
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> Iterator[tuple[str, str]]:
        yield "MESSAGE", self.format(record)
        yield "PRIORITY", str(_PRIORITY.get(record.levelno, 6))
        yield "SYSLOG_IDENTIFIER", IDENTIFIER
        yield "LOGGER", record.name
        yield "CODE_FILE", record.pathname
        yield "CODE_LINE", str(record.lineno)
        yield "CODE_FUNC", record.funcName or ""
        yield from subjects(record)


def _field(name: str, value: str) -> bytes:
    """Return a field as the protocol has it: with its length, since a value may have several lines."""
    data = value.encode("utf-8", "backslashreplace")
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def subjects(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    """Return which job and run a record is about: its message has their ids as `job %s` and `run %s`."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    places = (match for match in _PLACE.finditer(str(record.msg)) if match[2] != "%")
    for match, argument in zip(places, arguments, strict=False):
        if match[1]:
            yield f"{match[1].upper()}_ID", str(argument).translate(_CONTROL)


def _to_stderr(in_journal: bool) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(in_journal))
    return handler


def _is_journal(descriptor: int) -> bool:
    """Return whether a descriptor is what systemd connected with the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _handler() -> logging.Handler:
    if not _is_journal(2):
        return _to_stderr(in_journal="JOURNAL_STREAM" in os.environ)
    try:
        return Journal()
    except OSError:
        return _to_stderr(in_journal=True)


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
    """Send all records of `level` and above to the journal, or to stderr."""
    logging.basicConfig(level=level.upper(), handlers=[_handler()], force=True)
    logging.getLogger("aiohttp.server").addFilter(_without_traceback)
    logging.getLogger("schedule").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
