"""Follow a run on a terminal, across restarts of the daemon: output on stdout, a status line on stderr."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import Any

from ..core.clock import SystemClock
from ..core.units import format_duration
from .client import PREFIX, Client, ClientError, ResponseStream, run_path
from .output import format_percent, printable, printable_lines
from .terminal import Controls, TerminalText

RECONNECT_SECONDS = 60.0  # how long a daemon that does not answer is tried again
RETRY_SECONDS = 0.5  # between two tries
POLL_SECONDS = 15.0  # the longest that the daemon may delay its response to wait for the end of a run
STATUS_SECONDS = 1.0  # between two updates of the status line
CLEAR_LINE = "\r\x1b[K"
FORBIDDEN, GONE = 403, 410  # HTTP statuses
TEMPORARY = (0, 503)  # HTTP statuses while the daemon restarts
UNFINISHED = ("queued", "running")  # statuses of a run


class Terminal:
    """Writes output to stdout, and below it one status line on stderr if that is a terminal.

    If stdout is no terminal, the bytes of the output are written unchanged.
    """

    def __init__(self, controls: Controls) -> None:
        """`controls` says how control characters are written to a terminal."""
        self._lock = threading.Lock()
        self._text = TerminalText(controls if sys.stdout.isatty() else Controls.RAW)
        self._has_status = sys.stderr.isatty()
        self._is_status_shown = False
        self._is_line_start = True  # the cursor is at the beginning of a line

    def write(self, data: bytes) -> None:
        """Write output, in place of the status line."""
        with self._lock:
            self._write(self._text.feed(data))

    def end(self) -> None:
        """Write what is left of an incomplete sequence at the end of the output."""
        with self._lock:
            self._write(self._text.end())

    def _write(self, data: bytes) -> None:
        if not data:
            return
        self._clear()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self._is_line_start = data.endswith(b"\n") or not sys.stdout.isatty()

    def print_message(self, text: str) -> None:
        """Write a line of our own to stderr."""
        with self._lock:
            self._clear()
            print(printable_lines(text), file=sys.stderr, flush=True)

    def set_status(self, text: str) -> None:
        """Show a status line until the next output."""
        with self._lock:
            if self._has_status and self._is_line_start:
                print(f"{CLEAR_LINE}{printable(text)}", end="", file=sys.stderr, flush=True)
                self._is_status_shown = True

    def clear_status(self) -> None:
        """Remove the status line, and end an incomplete line of output."""
        with self._lock:
            self._clear()
            if not self._is_line_start:
                print(file=sys.stderr, flush=True)
                self._is_line_start = True

    def _clear(self) -> None:
        if self._is_status_shown:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
            self._is_status_shown = False


class Reconnect:
    """Limits how long a daemon that does not answer is tried again."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.on_response()

    def on_response(self) -> None:
        """Start the time limit again."""
        self._until = self._clock.monotonic() + RECONNECT_SECONDS

    def on_error(self, error: ClientError) -> None:
        """Raise `error` if it is permanent, or if the time limit has been reached."""
        if error.status not in TEMPORARY or self._clock.monotonic() > self._until:
            raise error


class OutputFollower:
    """Writes the output of one run; `offset` is the position up to which it has been written."""

    def __init__(self, client: Client, run_id: str, controls: Controls) -> None:
        self.run_id = run_id
        self.path = run_path(run_id, "output")
        self.offset = 0
        self.terminal = Terminal(controls)
        self._client = client
        self._pause = threading.Event()

    def write_stream(self, stream: ResponseStream) -> None:
        """Write a part of the output while it arrives, and report what was dropped before it."""
        if int(stream.headers["x-output-size"]) < self.offset:
            self._on_truncated()
            return
        dropped = int(stream.headers["x-output-dropped"])
        self.offset += dropped
        self.report_dropped(dropped)
        for data in stream.pieces:
            self.terminal.write(data)
            self.offset += len(data)

    def fetch(self, limit: int) -> tuple[int, bytes]:
        """Return how many bytes were dropped at `offset`, and at most `limit` bytes that follow them."""
        with self._client.stream(f"{PREFIX}/{self.path}", offset=self.offset, limit=limit) as stream:
            data = b"".join(stream.pieces)
            dropped = int(stream.headers["x-output-dropped"])
        self.offset += dropped + len(data)
        return dropped, data

    def report_dropped(self, dropped: int) -> None:
        """Write a message about bytes that were dropped, if there are any."""
        if dropped:
            self.terminal.print_message(f"[schedulerd: {dropped} bytes dropped]")

    def _on_truncated(self) -> None:
        self.terminal.print_message("[schedulerd: the run has erased its output]")
        self.offset = 0

    def _on_removed(self) -> dict[str, Any]:
        """Return the run when it has ended; there is no output to follow."""
        self.terminal.print_message("[schedulerd: the output of the run was removed]")
        return wait_for_end(self._client, self.run_id, None) or {}

    def follow(self) -> dict[str, Any]:
        """Write all output until the run has ended; return the run. Raise ClientError if the daemon does not come back."""
        reconnect = Reconnect()
        while True:
            before = self.offset
            try:
                with self._client.stream(f"{PREFIX}/{self.path}", follow="true", offset=self.offset) as stream:
                    self.write_stream(stream)
                run: dict[str, Any] = self._client.get(run_path(self.run_id))
                if run.get("output_removed"):
                    return self._on_removed()
                if run["output_bytes"] < self.offset:
                    self._on_truncated()
                if run["status"] not in UNFINISHED and self.offset >= run["output_bytes"]:
                    return run
                reconnect.on_response()
            except ClientError as error:
                if error.status == GONE:
                    return self._on_removed()
                reconnect.on_error(error)
                self.terminal.set_status(f"{error}: trying again")
            if self.offset == before:
                self._pause.wait(RETRY_SECONDS)


def wait_for_end(client: Client, run_id: str, until: float | None) -> dict[str, Any] | None:
    """Return a run when it has ended, or None at `until` (monotonic seconds; None means no limit).

    Restarts of the daemon are tolerated. Raise ClientError if it does not come back.
    """
    clock, reconnect, pause = SystemClock(), Reconnect(), threading.Event()
    while True:
        requested_at = clock.monotonic()
        wait = POLL_SECONDS if until is None else max(0.0, min(POLL_SECONDS, until - requested_at))
        try:
            run: dict[str, Any] = client.get(run_path(run_id), wait=f"{wait:.3f}")
            if run["status"] not in UNFINISHED:
                return run
            reconnect.on_response()
        except ClientError as error:
            reconnect.on_error(error)
        now = clock.monotonic()
        if until is not None and now >= until:
            return None
        if now - requested_at < RETRY_SECONDS:  # the daemon is stopping or down: it did not wait
            pause.wait(RETRY_SECONDS if until is None else min(RETRY_SECONDS, until - now))


def follow_run(client: Client, run_id: str, controls: Controls) -> dict[str, Any]:
    """Write the output of a run from its beginning, with a status line on a terminal; return the run when it has ended."""
    follower = OutputFollower(client, run_id, controls)
    is_over = threading.Event()
    updater = threading.Thread(target=_update_status, args=(client, run_id, follower.terminal, is_over), daemon=True)
    if sys.stderr.isatty():
        with suppress(RuntimeError):  # the thread cannot be started: then there is no status line
            updater.start()
    try:
        return follower.follow()
    except ClientError as error:
        if error.status != FORBIDDEN:
            raise
        follower.terminal.print_message(f"[schedulerd: {error}]")
        return wait_for_end(client, run_id, None) or {}
    finally:
        is_over.set()
        follower.terminal.end()
        follower.terminal.clear_status()


def _update_status(client: Client, run_id: str, terminal: Terminal, is_over: threading.Event) -> None:
    while not is_over.wait(STATUS_SECONDS):
        try:
            run = client.get(run_path(run_id))
        except ClientError:
            continue  # the follower reports it
        if not is_over.is_set():
            terminal.set_status(format_status(run))


def format_status(run: dict[str, Any]) -> str:
    """Return the state of a run on one line."""
    parts = [f"{run['job_id']}: {run['status']}"]
    if run["running_seconds"] is not None:
        parts.append(f"for {format_duration(round(run['running_seconds']))}")
    if run["progress"] is not None:
        parts.append(format_percent(run["progress"]))
    if run["eta_seconds"]:
        parts.append(f"about {format_duration(round(run['eta_seconds']))} left")
    return ", ".join(parts)
