"""Logging: one line for each record to stderr, or, under systemd, records with fields to the journal.

In the journal, a record has the fields of systemd.journal-fields(7). If its message names a job or run, it also has JOB_ID
and RUN_ID: `log.info("job %s: run %s …", …)`. So `journalctl JOB_ID=backup` finds the records of a job.

A slow reader of the log does not block the daemon (see host/nonblocking.py). If a traceback is repeated, only its last line
is logged.
"""

from __future__ import annotations

import copy
import logging
import os
import re
import select
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from .core.clock import SystemClock
from .core.failures import FailureLog
from .core.text import escaped, one_line
from .core.units import counted
from .host.nonblocking import NonBlockingWriter, to_descriptor, to_socket

log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
LONGEST = 8000  # characters of one record
MOST_PLACES = 1000  # in the code, whose tracebacks are remembered
MANY_KEPT = 100  # waiting messages that count as trouble; fewer are normal for a busy reader
CLOSE_SECONDS = 1.0  # at exit, for the reader to accept some of the waiting messages
LONGEST_CLOSE_SECONDS = 5.0  # at exit, for the reader to accept all of them
JOURNAL = "/run/systemd/journal/socket"
IDENTIFIER = "schedulerd"
_PLACE = re.compile(r"(?:\b(job|run) )?%[-+ #0]*[\d.*]*([a-zA-Z%])")  # the place of an argument in a message, with its kind


class _OneLine(logging.Formatter):
    """Escapes control characters, so that the output of a job cannot forge a record (CWE-117)."""

    def __init__(self, in_journal: bool, with_time: bool = True) -> None:
        super().__init__("%(message)s" if in_journal or not with_time else "%(asctime)s %(levelname)-7s %(message)s")
        self._in_journal = in_journal
        self._tracebacks = _Tracebacks()

    def format(self, record: logging.LogRecord) -> str:
        record = self._tracebacks.shortened(record)
        text = super().format(record)
        if len(text) > LONGEST:
            text = text[:LONGEST] + "…"
        if self._in_journal:
            prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
            text = "\n".join(prefix + line for line in text.split("\n"))
        return text

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message[: LONGEST + 1]  # before it is escaped, which is slow for long texts
        return one_line(super().formatMessage(record))

    def formatException(self, error: Any) -> str:
        """Return a traceback in which the message of each error is one line, even if its text has several."""
        parts = (part.strip("\n") for part in traceback.format_exception(*error))
        return "\n".join(escaped(part) if part.startswith("  ") else one_line(part) for part in parts)


class _Tracebacks:
    """Remembers which tracebacks were logged. A repeated one is reduced to one line, except at growing intervals."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._seen: dict[tuple[Any, ...], FailureLog] = {}

    def shortened(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return a record, without its traceback if that was logged recently."""
        if not record.exc_info or (error := record.exc_info[1]) is None or self._is_to_be_told(record, error):
            return record
        short = copy.copy(record)
        short.msg, short.args = "%s: %s: %s", (record.getMessage(), type(error).__name__, error)
        short.exc_info = short.exc_text = None
        return short

    def _is_to_be_told(self, record: logging.LogRecord, error: BaseException) -> bool:
        key = (record.pathname, record.lineno, type(error), *_innermost(error.__traceback__))
        if key not in self._seen and len(self._seen) >= MOST_PLACES:
            self._seen.clear()
        return self._seen.setdefault(key, FailureLog("", self._clock)).failed(error) is not None


def _innermost(traceback: TracebackType | None) -> tuple[str, int]:
    if traceback is None:
        return "", 0
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno


class Unwaiting(logging.Handler):
    """Writes records through a non-blocking writer: a slow reader does not block the threads that log."""

    outlet: NonBlockingWriter

    @property
    def trouble(self) -> str | None:
        """The message about records that the reader did not accept, or None."""
        if self.outlet.kept < MANY_KEPT and not self.outlet.lost:
            return None
        return f"nobody reads the log: {counted(self.outlet.kept, 'message')} kept, {self.outlet.lost} lost"

    def flush(self) -> None:
        """Write the waiting records, as far as the reader accepts them now."""
        with self.lock or threading.RLock():
            self.outlet.flush()

    def handleError(self, record: logging.LogRecord) -> None:
        """Log an error in place of a record that cannot be formatted."""
        text = f"a message of {record.pathname}:{record.lineno} cannot be formatted: {record.msg!r}"
        self.outlet.put(self._made(_record(logging.ERROR, text)))

    def _made(self, record: logging.LogRecord) -> bytes:
        """Return the bytes of a record."""
        raise NotImplementedError

    def _give_time(self, descriptor: int) -> None:
        """Wait for the reader to accept the waiting records.

        The wait ends after CLOSE_SECONDS without progress, and with a slow reader after about LONGEST_CLOSE_SECONDS.
        """
        poll, clock = select.poll(), SystemClock()
        poll.register(descriptor, select.POLLOUT)
        until = clock.monotonic() + LONGEST_CLOSE_SECONDS
        while not self.outlet.flush() and clock.monotonic() < until and poll.poll(CLOSE_SECONDS * 1000):
            """The next piece."""


class Stderr(Unwaiting):
    """Writes records to a descriptor."""

    def __init__(self, descriptor: int, in_journal: bool) -> None:
        super().__init__()
        self.setFormatter(_OneLine(in_journal))
        self._descriptor = descriptor
        self.outlet = NonBlockingWriter(to_descriptor(descriptor), lambda lost: self._made(_lost(lost)))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            self.outlet.put(self._made(record))
        except Exception:  # as in all handlers: a record that cannot be formatted is reported, and has no other effect
            self.handleError(record)

    def close(self) -> None:
        """Wait briefly for the reader to accept the waiting records."""
        self._give_time(self._descriptor)
        super().close()

    def _made(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")


class Journal(Unwaiting):
    """Sends records to the journal by its protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), or to stderr if that fails."""

    def __init__(self, path: str = JOURNAL) -> None:
        """Connect to the journal. Raise OSError if it is not available."""
        super().__init__()
        self.setFormatter(_OneLine(in_journal=False, with_time=False))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.connect(path)
        self._take = to_socket(self._socket)
        self._is_away = False
        self._instead: logging.Handler | None = None
        self.outlet = NonBlockingWriter(self._sent, lambda lost: self._made(_lost(lost)))

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            self._is_away = False
            self.outlet.put(self._made(record))
            if self._is_away:
                self._instead = self._instead or _to_stderr(in_journal=True)
                self._instead.handle(record)
        except Exception:  # as in all handlers: a record that cannot be formatted is reported, and has no other effect
            self.handleError(record)

    def close(self) -> None:
        """Wait briefly for the journal to accept the waiting records, and close the socket."""
        if self._socket.fileno() >= 0:  # logging.shutdown() closes each handler again at exit
            self._give_time(self._socket.fileno())
        self._socket.close()
        super().close()

    def _sent(self, datagram: bytes) -> int:
        try:
            return self._take(datagram)
        except OSError:
            self._is_away = True
            return len(datagram)

    def _made(self, record: logging.LogRecord) -> bytes:
        return b"".join(_field(name, value) for name, value in self._fields(record))

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
    """Return a field in the binary form of the protocol, with its length: a value may have several lines."""
    data = value.encode("utf-8", "backslashreplace")
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def subjects(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    """Yield JOB_ID and RUN_ID with the ids that the message of a record has as `job %s` and `run %s`."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    places = (match for match in _PLACE.finditer(str(record.msg)) if match[2] != "%")
    for match, argument in zip(places, arguments, strict=False):
        if match[1]:
            yield f"{match[1].upper()}_ID", escaped(str(argument))


def _lost(number: int) -> logging.LogRecord:
    return _record(logging.WARNING, f"{counted(number, 'message')} lost here: nobody read the log")


def _record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, level, __file__, 0, text, (), None)


def _to_stderr(in_journal: bool) -> logging.Handler:
    if sys.stderr is None:  # the daemon was started with a closed stderr
        return logging.NullHandler()
    try:
        return Stderr(sys.stderr.fileno(), in_journal)
    except (OSError, ValueError):  # stderr was replaced by an object without a descriptor
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(in_journal))
    return handler


def _is_journal(descriptor: int) -> bool:
    """Return whether systemd has connected a descriptor to the journal (systemd.exec(5), JOURNAL_STREAM)."""
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
    """Reduce the record of an invalid HTTP request to one line: any caller can send one, and must not fill the log.

    Discard the record when the caller has closed the connection before the end of the response.
    """
    if record.exc_info and isinstance(record.exc_info[1], ConnectionError):
        return False
    if record.exc_info and record.exc_info[1] is not None:
        record.msg, record.args = "a bad request: %s", (type(record.exc_info[1]).__name__,)
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


class _Seldom(logging.Filter):
    """Discards the records that `_Tracebacks` would shorten, for a logger that repeats an error every second."""

    def __init__(self) -> None:
        super().__init__()
        self._tracebacks = _Tracebacks()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        return self._tracebacks.shortened(record) is record


def flush() -> None:
    """Write the waiting records of all handlers, as far as the reader accepts them now. Called periodically."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def troubles() -> list[str]:
    """Return the problems of the log, as messages."""
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, Unwaiting)]
    return [handler.trouble for handler in handlers if handler.trouble is not None]


def _log_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread is not None else "?"
    if args.exc_value is not None:
        log.critical("the thread %s has ended", name, exc_info=args.exc_value)


def set_up(level: str = "info") -> None:
    """Send all records of `level` and above to the journal, or to stderr."""
    logging.basicConfig(level=level.upper(), handlers=[_handler()], force=True)
    threading.excepthook = _log_thread
    logging.getLogger("aiohttp.server").addFilter(_without_traceback)
    logging.getLogger("schedule").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("asyncio").addFilter(_Seldom())  # asyncio logs a failure of accept(2) every second
