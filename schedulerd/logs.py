"""Logging: one line a record to stderr, or under systemd records with fields in the journal.

In the journal a record has the fields of systemd.journal-fields(7), and of ours JOB_ID and RUN_ID, when its message names
a job or run: `log.info("job %s: run %s …", …)`. So `journalctl JOB_ID=backup` finds them.

Nobody waits for who reads the log (see `outlet`). Of a traceback that comes again and again only the last line is logged.
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
MOST_PLACES = 1000  # in the program, of which tracebacks were logged
MANY_KEPT = 100  # messages: fewer wait for a reader who is busy
CLOSE_SECONDS = 1.0  # for a reader to take some of what waits, at the end
LONGEST_CLOSE_SECONDS = 5.0  # for a reader to take all of it
JOURNAL = "/run/systemd/journal/socket"
IDENTIFIER = "schedulerd"
_PLACE = re.compile(r"(?:\b(job|run) )?%[-+ #0]*[\d.*]*([a-zA-Z%])")  # of an argument of a message, with what it is


class _OneLine(logging.Formatter):
    """Escapes control characters, so that what a job printed cannot forge a record (CWE-117)."""

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
        record.message = record.message[: LONGEST + 1]  # before it is escaped, which takes its time
        return one_line(super().formatMessage(record))

    def formatException(self, error: Any) -> str:
        """Return a traceback in which each error is one line, whatever it quotes."""
        parts = (part.strip("\n") for part in traceback.format_exception(*error))
        return "\n".join(escaped(part) if part.startswith("  ") else one_line(part) for part in parts)


class _Tracebacks:
    """Remembers which tracebacks were logged: one that comes again is told in one line, but for now and then."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._seen: dict[tuple[Any, ...], FailureLog] = {}

    def shortened(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return a record, without its traceback when that was logged a moment ago."""
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
    """Passes records on through an outlet, so that nobody waits for their reader."""

    outlet: NonBlockingWriter

    @property
    def trouble(self) -> str | None:
        """What became of records that nobody took, in words, or None."""
        if self.outlet.kept < MANY_KEPT and not self.outlet.lost:
            return None
        return f"nobody reads the log: {counted(self.outlet.kept, 'message')} kept, {self.outlet.lost} lost"

    def flush(self) -> None:
        """Pass on what waits, as far as it is taken now."""
        with self.lock or threading.RLock():
            self.outlet.flush()

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell of a record that cannot be formatted, in its place."""
        text = f"a message of {record.pathname}:{record.lineno} cannot be formatted: {record.msg!r}"
        self.outlet.put(self._made(_record(logging.ERROR, text)))

    def _made(self, record: logging.LogRecord) -> bytes:
        """Return a record as it is passed on."""
        raise NotImplementedError

    def _give_time(self, descriptor: int) -> None:
        """Give who reads a last moment to take what waits; who takes it slowly gets no more of it than is bearable."""
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
        except Exception:  # as every handler: a record that cannot be formatted is told, and costs nothing else
            self.handleError(record)

    def close(self) -> None:
        """Give who reads a last moment to take what waits."""
        self._give_time(self._descriptor)
        super().close()

    def _made(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")


class Journal(Unwaiting):
    """Sends records to the journal by its protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), to stderr when it is away."""

    def __init__(self, path: str = JOURNAL) -> None:
        """Raise OSError when there is no journal."""
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
        except Exception:  # as every handler: a record that cannot be formatted is told, and costs nothing else
            self.handleError(record)

    def close(self) -> None:
        """Give the journal a last moment to take what waits, and close the socket."""
        if self._socket.fileno() >= 0:  # it is closed once more at the very end
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
    """Return a field as the protocol has it: with its length, since a value may have several lines."""
    data = value.encode("utf-8", "backslashreplace")
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def subjects(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    """Return which job and run a record is about: its message has their ids as `job %s` and `run %s`."""
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
    if sys.stderr is None:  # it was closed when the daemon was started
        return logging.NullHandler()
    try:
        return Stderr(sys.stderr.fileno(), in_journal)
    except (OSError, ValueError):  # somebody put something else there, which is no file
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
    if record.exc_info and isinstance(record.exc_info[1], ConnectionError):
        return False
    if record.exc_info and record.exc_info[1] is not None:
        record.msg, record.args = "a bad request: %s", (type(record.exc_info[1]).__name__,)
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


class _Seldom(logging.Filter):
    """Lets pass of each error with a traceback what `_Tracebacks` would show in full, for what is told every second."""

    def __init__(self) -> None:
        super().__init__()
        self._tracebacks = _Tracebacks()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be logged."""
        return self._tracebacks.shortened(record) is record


def flush() -> None:
    """Pass on what waited for who reads the log, as far as it is taken now: called now and then."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def troubles() -> list[str]:
    """Return what is wrong with the log, in words."""
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
    logging.getLogger("asyncio").addFilter(_Seldom())  # a socket that cannot accept says so every second
