"""Follow a run from a terminal, over restarts of the daemon: output to stdout as it comes, a line of status on stderr."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import Any

from ..core.clock import SystemClock
from ..core.models import UNFINISHED
from ..core.units import format_duration
from .client import PREFIX, Client, ClientError, Streamed, run_path
from .output import percent, printable, printable_lines
from .terminal import Controls, TerminalText

PATIENCE_SECONDS = 60.0  # for a daemon that does not answer
AGAIN_SECONDS = 0.5
LOOK_SECONDS = 15.0  # the longest that a daemon is asked to wait before it answers
STATUS_SECONDS = 1.0
CLEAR_LINE = "\r\x1b[K"
FORBIDDEN, GONE = 403, 410
PASSING = (0, 503)  # HTTP statuses of a daemon that comes back


class StatusLine:
    """Output, and at the bottom of a terminal one line that tells how a run is; without a terminal, output alone.

    Without a terminal, output is passed on byte by byte.
    """

    def __init__(self, controls: Controls) -> None:
        """`controls` says what becomes of control characters on a terminal."""
        self._lock = threading.Lock()
        self._text = TerminalText(controls if sys.stdout.isatty() else Controls.RAW)
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = False
        self._is_free = True  # the cursor is at the beginning of a line

    def write(self, data: bytes) -> None:
        """Write output where the line was."""
        with self._lock:
            self._write(self._text.feed(data))

    def end(self) -> None:
        """Write what was held back: there is no more output."""
        with self._lock:
            self._write(self._text.end())

    def _write(self, data: bytes) -> None:
        if not data:
            return
        self._clear()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self._is_free = data.endswith(b"\n") or not sys.stdout.isatty()

    def say(self, text: str) -> None:
        """Write a line that stays, to stderr."""
        with self._lock:
            self._clear()
            print(printable_lines(text), file=sys.stderr, flush=True)

    def set(self, text: str) -> None:
        """Show a line until the next output."""
        with self._lock:
            if self._is_terminal and self._is_free:
                print(f"{CLEAR_LINE}{printable(text)}", end="", file=sys.stderr, flush=True)
                self._is_shown = True

    def clear(self) -> None:
        """Take the line away; what is said next begins on a line of its own."""
        with self._lock:
            self._clear()
            if not self._is_free:
                print(file=sys.stderr, flush=True)
                self._is_free = True

    def _clear(self) -> None:
        if self._is_shown:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
            self._is_shown = False


class Patience:
    """How long a daemon that does not answer is waited for: it may be on its way back."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.restore()

    def restore(self) -> None:
        """Begin again: it has answered."""
        self._give_up = self._clock.monotonic() + PATIENCE_SECONDS

    def bear(self, error: ClientError) -> None:
        """Raise an error that will not pass, or that has lasted too long."""
        if error.status not in PASSING or self._clock.monotonic() > self._give_up:
            raise error


class Watch:
    """One run that is watched; `offset` is where its output goes on."""

    def __init__(self, client: Client, run_id: str, controls: Controls) -> None:
        self.run_id = run_id
        self.path = run_path(run_id, "output")
        self.offset = 0
        self.line = StatusLine(controls)
        self._client = client
        self._pause = threading.Event()

    def show(self, data: bytes) -> None:
        """Write output."""
        self.line.write(data)

    def take(self, answer: Streamed) -> None:
        """Write what comes, and keep count; tell what was dropped, and when all of it was."""
        if int(answer.headers["x-output-size"]) < self.offset:
            self._begin_anew()
            return
        self._go_to(answer)
        for data in answer.pieces:
            self.line.write(data)
            self.offset += len(data)

    def fetch(self, limit: int) -> tuple[int, bytes]:
        """Return output from `offset` on, at most `limit` bytes of it, and how much was dropped before that."""
        with self._client.stream(f"{PREFIX}/{self.path}", offset=self.offset, limit=limit) as answer:
            data = b"".join(answer.pieces)
            dropped = int(answer.headers["x-output-dropped"])
        self.offset += dropped + len(data)
        return dropped, data

    def tell_dropped(self, dropped: int) -> None:
        """Tell of bytes that were dropped, if there are any."""
        if dropped:
            self.line.say(f"[schedulerd: {dropped} bytes dropped]")

    def _go_to(self, answer: Streamed) -> None:
        dropped = int(answer.headers["x-output-dropped"])
        self.offset += dropped
        self.tell_dropped(dropped)

    def _begin_anew(self) -> None:
        self.line.say("[schedulerd: the run has erased its output]")
        self.offset = 0

    def _await_end(self) -> dict[str, Any]:
        """Return the run when it has ended: there is no output to wait for."""
        self.line.say("[schedulerd: the output of the run was removed]")
        return awaited(self._client, self.run_id, None) or {}

    def follow(self) -> dict[str, Any]:
        """Write all output until the run has ended; return the run. Raise ClientError when the daemon stays away."""
        patience = Patience()
        while True:
            before = self.offset
            try:
                with self._client.stream(f"{PREFIX}/{self.path}", follow="true", offset=self.offset) as answer:
                    self.take(answer)
                run: dict[str, Any] = self._client.get(run_path(self.run_id))
                if run.get("output_removed"):
                    return self._await_end()
                if run["output_bytes"] < self.offset:
                    self._begin_anew()
                if run["status"] not in UNFINISHED and self.offset >= run["output_bytes"]:
                    return run
                patience.restore()
            except ClientError as error:
                if error.status == GONE:
                    return self._await_end()
                patience.bear(error)
                self.line.set(f"{error}: trying again")
            if self.offset == before:
                self._pause.wait(AGAIN_SECONDS)


def awaited(client: Client, run_id: str, until: float | None) -> dict[str, Any] | None:
    """Return a run as it ended, or None when it has not at `until` (monotonic; None is never).

    A restart of the daemon is waited for. Raise ClientError when it stays away.
    """
    clock, patience, pause = SystemClock(), Patience(), threading.Event()
    while True:
        asked_at = clock.monotonic()
        look = LOOK_SECONDS if until is None else max(0.0, min(LOOK_SECONDS, until - asked_at))
        try:
            run: dict[str, Any] = client.get(run_path(run_id), wait=f"{look:.3f}")
            if run["status"] not in UNFINISHED:
                return run
            patience.restore()
        except ClientError as error:
            patience.bear(error)
        now = clock.monotonic()
        if until is not None and now >= until:
            return None
        if now - asked_at < AGAIN_SECONDS:  # it is stopping, or away
            pause.wait(AGAIN_SECONDS if until is None else min(AGAIN_SECONDS, until - now))


def watched(client: Client, run_id: str, controls: Controls) -> dict[str, Any]:
    """Follow a run from its beginning, with a line of status when there is a terminal; return it as it ended."""
    watch = Watch(client, run_id, controls)
    is_over = threading.Event()
    teller = threading.Thread(target=_tell, args=(client, run_id, watch.line, is_over), daemon=True)
    if sys.stderr.isatty():
        with suppress(RuntimeError):  # no thread is to be had: then there is no line of status
            teller.start()
    try:
        return watch.follow()
    except ClientError as error:
        if error.status != FORBIDDEN:
            raise
        watch.line.say(f"[schedulerd: {error}]")
        return awaited(client, run_id, None) or {}
    finally:
        is_over.set()
        watch.line.end()
        watch.line.clear()


def _tell(client: Client, run_id: str, line: StatusLine, is_over: threading.Event) -> None:
    while not is_over.wait(STATUS_SECONDS):
        try:
            run = client.get(run_path(run_id))
        except ClientError:
            continue  # who follows the output tells it
        if not is_over.is_set():
            line.set(status_of(run))


def status_of(run: dict[str, Any]) -> str:
    """Return how a run is, on one line."""
    parts = [f"{run['job_id']}: {run['status']}"]
    if run["running_seconds"] is not None:
        parts.append(f"for {format_duration(round(run['running_seconds']))}")
    if run["progress"] is not None:
        parts.append(percent(run["progress"]))
    if run["eta_seconds"]:
        parts.append(f"about {format_duration(round(run['eta_seconds']))} left")
    return ", ".join(parts)
