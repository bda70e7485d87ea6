"""The daemon's side of its children: orders to the keepers that start them, and what the keepers report.

The keepers (`keeper/`) are the parents of all children and outlive the daemon; this file starts and connects them, and is
the only way to start a child. One thread, the supervisor, hears of all starts and ends, so a run that waits for its child
costs no thread. A keeper that was killed is started again, and told again what it had not taken.
"""

from __future__ import annotations

import json
import logging
import os
import select
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from .clock import Clock
from .errors import StartError
from .link import Link

log = logging.getLogger(__name__)

MOST_KEEPERS = 2  # one is as quick as one core starts processes
AGAIN_SECONDS = 1.0
STUMBLE_SECONDS = 0.2


class Cause(StrEnum):
    """Why we ended a child before it ended itself."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    SHUTDOWN = "shutdown"
    REPLACE = "replace"  # a newer run of the job takes its place


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a child runs as; set only by root. `groups` are all of its supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use. `rlimits` are (soft, hard) by their name in the resource module, without RLIMIT_."""

    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    nice: int | None = None
    ionice: tuple[int, int] | None = None  # class and level, as in ioprio_set(2)
    of_run: Mapping[str, float] = field(default_factory=dict)  # of all its processes: `memory` bytes, `cpus`, `pids`


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A child to start: `argv[0]` is the path of its program, `env` all of its environment."""

    argv: list[str]
    env: Mapping[str, str]
    output_path: str
    cwd: str | None = None
    timeout_seconds: float | None = None
    kill_grace_seconds: float = 10.0
    input: bytes | None = None  # what it can read from its standard input; None is /dev/null
    output_limit_bytes: int | None = None  # head and tail of its output are kept; None is no limit
    identity: Identity | None = None
    limits: Limits | None = None
    umask: int | None = None
    keeps_leftovers: bool = False  # what it leaves behind goes on when it has ended


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended: `exit_code` is negative for a signal, as in the subprocess module.

    `lost` says why its true end is not known (then the other figures are not, either).
    """

    run_id: str
    exit_code: int | None
    ended_at: datetime
    cause: Cause | None = None
    duration_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    lost: str | None = None
    oom_kills: int = 0  # by the kernel, because its run had used up its memory
    pids_refused: int = 0  # processes that it could not start, because its run had too many
    limits_not_kept: tuple[str, ...] = ()  # there is no control group that could
    is_output_erased: bool = False  # by itself, in between: what it wrote before is gone


class Listener(Protocol):
    """Who is told of children, from the supervisor's thread."""

    def started(self, run_id: str, at: datetime) -> None:
        """Hear that a child runs."""
        ...

    def refused(self, run_id: str, why: str) -> None:
        """Hear that a child could not be started, with the reason in words."""
        ...

    def ended(self, ends: list[End]) -> None:
        """Hear of the ends that came together."""
        ...


class Supervisor(threading.Thread):
    """The daemon's side of its keepers: gives orders, and tells `listener` what they report."""

    def __init__(self, folder: str, clock: Clock, listener: Listener) -> None:
        """`folder` is where the keepers live: two, or one on a single core."""
        super().__init__(name="supervisor", daemon=True)
        self._clock = clock
        self._listener = listener
        os.makedirs(folder, 0o700, exist_ok=True)
        number = min(MOST_KEEPERS, os.cpu_count() or 1)
        self._links = [Link(os.path.join(folder, str(place))) for place in range(number)]
        self._links += [Link(path) for path in _others(folder, number)]  # of a daemon that had more
        self._number = number
        self._next = 0
        self._of_run: dict[str, Link] = {}
        self._waiting: list[End] = []  # of before our start
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._by_descriptor: dict[int, Link] = {}
        self._closing = threading.Event()

    def recover(self) -> dict[str, datetime | None]:
        """Connect to all keepers; return the runs that they know, with when they were started (None: that is not known).

        What has ended of them is told when the thread is started.

        Raise StartError when there is no keeper to be had.
        """
        known: dict[str, datetime | None] = {}
        for link in self._links:
            with link.lock:
                runs = link.connect()["runs"]
                self._watch(link)
            for run_id, told in runs.items():
                link.runs[run_id], self._of_run[run_id] = None, link
                start, end = told["start"], told["end"]
                known[run_id] = _at(start["at"]) if start else None
                if end is not None:
                    self._waiting.append(_end(run_id, end))
        return known

    def launch(self, run_id: str, spec: ProcessSpec) -> None:
        """Order the start of a child; the listener hears what becomes of it. Raise StartError when no keeper is there."""
        order = _order(run_id, spec)
        link = self._links[self._next % self._number]
        self._next += 1
        with link.lock:
            if link.socket is None:
                raise StartError("the keeper, which starts all processes, is gone and could not be started again")
            link.runs[run_id], self._of_run[run_id] = order, link
            link.send(order)

    def end(self, run_id: str, cause: Cause) -> bool:
        """Climb the kill ladder for a run, now. False when it has no child (any more), or its keeper is being replaced."""
        link = self._of_run.get(run_id)
        if link is None:
            return False
        with link.lock:
            if run_id not in link.runs:
                return False
            order = link.endings.setdefault(run_id, _line({"end": run_id, "cause": cause}))
            return link.send(order)

    def forget(self, run_ids: Iterable[str]) -> None:
        """Tell the keepers that the ends of runs are recorded."""
        mine = list(run_ids)
        if not mine:
            return
        for link in self._links:
            with link.lock:
                link.send(_line({"forget": mine}))

    def close(self) -> None:
        """End the thread; children that still run go on."""
        self._closing.set()
        os.eventfd_write(self._wake, 1)
        if self.is_alive():
            self.join()
        for link in self._links:
            link.close()
        self._epoll.close()
        os.close(self._wake)

    def run(self) -> None:
        """Hear what the keepers report, until closed."""
        if self._waiting:
            self._heard_ends(self._waiting)
        while not self._closing.is_set():
            try:
                self._round()
            except Exception:  # this loop must not die: no run would ever end again
                log.exception("the supervisor stumbled and goes on")
                self._closing.wait(STUMBLE_SECONDS)

    def _round(self) -> None:
        for descriptor, _ in self._epoll.poll():
            link = self._by_descriptor.get(descriptor)
            if link is not None and not self._closing.is_set():
                reports = link.receive()
                if reports is None:
                    self._begin_again(link, descriptor)
                else:
                    self._hear(link, reports)

    def _hear(self, link: Link, reports: list[dict[str, Any]]) -> None:
        ends = []
        for report in reports:
            if "started" in report:
                self._heard_start(link, report["started"], report["at"])
            elif "ended" in report:
                ends.append(_end(report["ended"], report))
            elif "refused" in report:
                self._drop(report["refused"])
                self._listener.refused(report["refused"], report["why"])
            elif "trouble" in report:
                log.error("%s", report["trouble"])
        if ends:
            self._heard_ends(ends)

    def _heard_start(self, link: Link, run_id: str, at: float) -> None:
        link.runs[run_id] = None
        self._listener.started(run_id, _at(at))

    def _heard_ends(self, ends: list[End]) -> None:
        for end in ends:
            self._drop(end.run_id)
        self._listener.ended(ends)

    def _drop(self, run_id: str) -> None:
        link = self._of_run.pop(run_id, None)
        if link is not None:
            link.runs.pop(run_id, None)
            link.endings.pop(run_id, None)

    # When a keeper is gone

    def _watch(self, link: Link) -> None:
        assert link.socket is not None  # noqa: S101 - it was just connected
        self._by_descriptor[link.socket.fileno()] = link
        self._epoll.register(link.socket.fileno(), select.EPOLLIN)

    def _begin_again(self, link: Link, descriptor: int) -> None:
        """Start another keeper in the place of one that was killed; it knows from the journal what was going on."""
        log.error("the keeper of %s is gone: another one takes its place", link.folder)
        del self._by_descriptor[descriptor]
        with link.lock:
            link.reap()
            if link.socket is not None:
                link.socket.close()
                link.socket = None
            greeting = self._connect_patiently(link)
            if greeting is None:
                return
            self._watch(link)
            told = greeting["runs"]
            for run_id, order in link.runs.items():
                if run_id not in told and order is not None:
                    link.send(order)  # it was never taken: its intent is written before anything is started
            for order in link.endings.values():
                link.send(order)
        ends = [_end(run_id, one["end"]) for run_id, one in told.items() if one["end"] and run_id in link.runs]
        if ends:
            self._heard_ends(ends)
        self._catch_up(link, told)

    def _catch_up(self, link: Link, told: Mapping[str, Any]) -> None:
        gone = "its keeper was killed, and its journal is gone"
        for run_id, order in list(link.runs.items()):
            if run_id in told and order is not None and told[run_id]["start"]:
                self._heard_start(link, run_id, told[run_id]["start"]["at"])
            elif run_id not in told and order is None:
                self._heard_ends([End(run_id, None, self._clock.now(), lost=gone)])

    def _connect_patiently(self, link: Link) -> dict[str, Any] | None:
        while not self._closing.is_set():
            try:
                return link.connect()
            except StartError as error:
                log.error("%s", error)
                self._closing.wait(AGAIN_SECONDS)
        return None


def _others(folder: str, number: int) -> list[str]:
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.isdigit() and int(name) >= number]


def _line(order: Mapping[str, Any]) -> bytes:
    return json.dumps(order, separators=(",", ":")).encode() + b"\n"


def _order(run_id: str, spec: ProcessSpec) -> bytes:
    """Return the order to start a child. Raise StartError for what no process can be given."""
    if any("\0" in text for text in (*spec.argv, *spec.env, *spec.env.values())):
        raise StartError("a NUL character in an argument or variable")
    order: dict[str, Any] = {
        "start": run_id, "argv": spec.argv, "env": dict(spec.env), "output": spec.output_path, "cwd": spec.cwd,
        "timeout": spec.timeout_seconds, "grace": spec.kill_grace_seconds, "limit": spec.output_limit_bytes,
        "keep": spec.keeps_leftovers, "umask": spec.umask,
    }  # fmt: skip
    if spec.input is not None:
        order["input"] = spec.input.decode("latin-1")
    if spec.identity is not None:
        order["identity"] = [spec.identity.uid, spec.identity.gid, list(spec.identity.groups)]
    if spec.limits is not None:
        own = {"rlimits": dict(spec.limits.rlimits), "nice": spec.limits.nice, "ionice": spec.limits.ionice}
        if any(own.values()):
            order["limits"] = own
        if spec.limits.of_run:
            order["group"] = dict(spec.limits.of_run)
    return _line(order)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _end(run_id: str, told: Mapping[str, Any]) -> End:
    return End(
        run_id, told.get("code"), _at(told["at"]), Cause(told["cause"]) if told["cause"] else None, told["seconds"],
        told.get("cpu"), told.get("peak"), told.get("lost"), told.get("oom", 0), told.get("pids", 0),
        tuple(told.get("unkept", ())), bool(told.get("erased")),
    )  # fmt: skip


def keep_descriptors_private() -> None:
    """Mark what this process was started with, but for 0 to 2, as not for children; its own files are so already."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that lists them is gone by now
            os.set_inheritable(int(name), int(name) <= 2)
