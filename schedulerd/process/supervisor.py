"""The daemon's side of its keepers: gives them orders, hears what they report, and sees to it that they are there.

The keepers (`keeper/`) are the parents of all children and outlive the daemon; this is the only way to start a child. One
thread, the supervisor, hears of all starts and ends, so a run that waits for its child costs no thread. A keeper that was
killed, or that does not answer, is replaced, and the next one told what it had not taken.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.clock import Clock
from ..core.errors import StartError
from ..core.loop_steps import GuardedStep
from .keeper_connection import KeeperConnection
from .keeper_restarts import Connected, Restarts
from .spec import Cause, End, KnownRun, Listener, ProcessSpec, end_of, known_run_of, line_of, moment_of, start_order

log = logging.getLogger(__name__)

MOST_KEEPERS = 2  # one is as quick as one core starts processes
LOOK_SECONDS = 2.5  # between two looks at keepers of which something is awaited
PING_LOOKS = 2  # a keeper that was silent at so many is asked whether it is there,
SILENT_LOOKS = 7  # and given up at so many: 15 s at least
OLD_KEEPER = "the keeper is of an earlier version"
FORGOTTEN = "it may have ended long ago, and have been forgotten since: the history may be an older copy"


class Supervisor(threading.Thread):
    """The daemon's side of its keepers: gives orders, and tells `listener` what they report.

    No caller waits for a keeper: what one does not take now is sent by this thread. In the place of one that is gone, or
    that is silent for too long while it owes us a word, another one is summoned, by a thread of its own.
    """

    def __init__(self, folder: str, clock: Clock, listener: Listener) -> None:
        """`folder` is where the keepers live: two, or one on a single core."""
        super().__init__(name="supervisor", daemon=True)
        self._clock = clock
        self._listener = listener
        os.makedirs(folder, 0o700, exist_ok=True)
        number = min(MOST_KEEPERS, os.cpu_count() or 1)
        self._links = [KeeperConnection(os.path.join(folder, str(place))) for place in range(number)]
        self._links += [KeeperConnection(path) for path in _others(folder, number)]  # of a daemon that had more
        self._number = number
        self._next = 0
        self._of_run: dict[str, KeeperConnection] = {}  # until its end is recorded
        self._waiting: list[End] = []  # ends that the listener has not heard of
        self._working = GuardedStep("the supervisor of the keepers", clock)
        self._serving = GuardedStep("the connection to a keeper", clock)
        self._hearing = GuardedStep("the report of a keeper", clock)
        self._telling = GuardedStep("the word of an end", clock)
        self._greetings: list[Mapping[str, Any]] = []  # of before our start
        self._passed_on: set[str] = set()  # runs that a keeper could not write down, and that another one was given
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._by_descriptor: dict[int, KeeperConnection] = {}
        self._is_resting = False  # nothing is awaited of any keeper
        self._look_at: float | None = None  # when the next look at those is due of which something is
        self._summons = Restarts(self._wake_up)
        self._closing = threading.Event()

    def recover(self) -> dict[str, KnownRun]:
        """Connect to all keepers; return the runs that they know.

        What has ended of them is told when the thread is started.

        Raise StartError when one of them is not to be had: what it knows of, nobody else knows.
        """
        known: dict[str, KnownRun] = {}
        for link in self._links:
            connection, greeting = link.summoner.summon()
            self._take(link, connection, greeting)
            self._greetings.append(greeting)
            for run_id, told in greeting["runs"].items():
                if run_id in known and not told["start"]:  # the other one has started it, or knows no more either
                    link.send(line_of({"forget": [run_id]}))
                    continue
                self._know(link, run_id, told)
                known[run_id] = known_run_of(told)
        return known

    def _know(self, link: KeeperConnection, run_id: str, told: Mapping[str, Any]) -> None:
        """Take a run for a keeper's that told of it, and not for that of another one, which did not start it."""
        other = self._of_run.get(run_id)
        if other is not None:
            other.runs.pop(run_id)
            other.send(line_of({"forget": [run_id]}))
            self._waiting = [end for end in self._waiting if end.run_id != run_id]
        link.runs[run_id], self._of_run[run_id] = None, link
        if told["end"] is not None:
            self._waiting.append(end_of(run_id, told["end"]))

    def doubt_of(self, run_id: str) -> str | None:
        """Return why a run that no keeper knew in `recover` may have been started; None: it was not, which is proven.

        The journals of all keepers prove it when all of each could be read, and nothing was started without being in one
        since the runs that earlier daemons had left were settled (`settled`).
        """
        for link, greeting in zip(self._links, self._greetings, strict=True):
            doubt = greeting.get("doubt", OLD_KEEPER)
            if doubt is not None:
                return f"{doubt} ({link.folder})"
            if run_id in greeting["forgotten"] or run_id <= greeting["forgotten_to"]:
                return FORGOTTEN
        return None

    def settled(self) -> None:
        """Tell the keepers that no run is open any more of which only an earlier daemon knew."""
        self._greetings.clear()
        for link in self._links:
            with link.lock:
                self._send(link, line_of({"settled": True}))

    @property
    def trouble(self) -> str | None:
        """What is wrong with the keepers, in words; None when all of them are there and answer."""
        found = []
        for link in self._links:
            if link.socket is None:
                found.append(link.trouble or f"the keeper of {link.folder} is gone, and another one is summoned")
            elif link.silence >= PING_LOOKS:
                found.append(f"the keeper of {link.folder} does not answer")
            elif link.shortage is not None:
                found.append(f"the keeper of {link.folder}: {link.shortage}")
        return "; ".join(found) or None

    @property
    def keepers(self) -> list[int]:
        """The process ids of the keepers that are there."""
        return [link.pid for link in self._links if link.pid is not None]

    def restore(self) -> list[str]:
        """Have the keepers make again what somebody has removed of their files; return what is wrong, in words."""
        return [trouble for link in self._links if (trouble := link.look_at_files()) is not None]

    def launch(self, run_id: str, spec: ProcessSpec) -> None:
        """Order the start of a child; the listener hears what becomes of it. Raise StartError when no keeper is there."""
        self._give(run_id, start_order(run_id, spec))

    def _give(self, run_id: str, order: bytes, but: KeeperConnection | None = None) -> None:
        """Give a start to the next keeper that answers, else to one that may do so soon; not to the one that is `but`."""
        self._next += 1
        links = [self._links[(self._next + place) % self._number] for place in range(self._number)]
        links = [link for link in links if link is not but]
        links.sort(key=lambda link: (link.socket is None, link.silence >= PING_LOOKS))
        for link in links:
            with link.lock:
                if link.socket is None and link.trouble is not None:
                    continue
                link.runs[run_id], self._of_run[run_id] = order, link
                if link.socket is None:
                    link.held.add(run_id)
                self._send(link, order)
                return
        trouble = links[0].trouble if links else but and (but.trouble or but.shortage)
        raise StartError(f"no keeper, which starts all processes, is there: {trouble}")

    def end(self, run_id: str, cause: Cause) -> bool:
        """Climb the kill ladder for a run, as soon as its keeper hears of it. False when it has no child (any more)."""
        link = self._of_run.get(run_id)
        if link is None:
            return False
        with link.lock:
            if run_id not in link.runs:
                return False
            self._send(link, link.endings.setdefault(run_id, line_of({"end": run_id, "cause": cause})))
        return True

    def forget(self, run_ids: Iterable[str]) -> None:
        """Tell the keepers that the ends of runs are recorded; one that is gone is told when another one is there."""
        by_link: dict[KeeperConnection, list[str]] = {}
        for run_id in run_ids:
            link = self._of_run.pop(run_id, None)
            if link is not None:
                by_link.setdefault(link, []).append(run_id)
        for link, mine in by_link.items():
            with link.lock:
                self._send(link, line_of({"forget": mine}))

    def _send(self, link: KeeperConnection, order: bytes) -> None:
        """Give an order without waiting. The link's lock is held."""
        link.send(order)
        if link.socket is not None and link.unsent:
            self._epoll.modify(link.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        if self._is_resting and link.is_awaited:
            self._wake_up()

    def _wake_up(self) -> None:
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """End the thread; children that still run go on."""
        self._closing.set()
        self._wake_up()
        if self.is_alive():
            self.join()
        for link in self._links:
            link.drop()
            if not link.runs and link not in self._summons:
                link.summoner.reap()  # it has nothing to do, and ends
        if self._summons.close():  # else it would write to what is closed here
            self._epoll.close()
            os.close(self._wake)

    def run(self) -> None:
        """Hear what the keepers report, until closed."""
        while not self._closing.is_set():
            with self._working:
                self._round()
            pause = max(part.pause_seconds for part in (self._working, self._serving, self._telling))
            if pause:
                self._closing.wait(pause)

    def _round(self) -> None:
        self._tell_ends()
        ready = self._epoll.poll(self._patience())
        self._is_resting = False
        for descriptor, happened in ready:
            link = self._by_descriptor.get(descriptor)
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
            elif link is not None and not self._closing.is_set():
                with self._serving:
                    self._serve(link, happened)
        for link, found in self._summons.outcomes():
            self._come(link, found)
        if self._look_at is not None and self._clock.monotonic() >= self._look_at:
            self._look_at = None
            self._look()

    def _patience(self) -> float | None:
        """Return for how many seconds there is nothing to do; None is until a keeper or an order comes."""
        self._is_resting = True  # before the keepers are looked at: an order that comes now wakes us
        if not self._waiting and not any(link.is_awaited or self._is_missing(link) for link in self._links):
            self._look_at = None
            return None
        self._is_resting = False
        now = self._clock.monotonic()
        if self._look_at is None:
            self._look_at = now + LOOK_SECONDS
        if self._waiting:
            return 0.0
        return max(0.0, self._look_at - now)

    def _serve(self, link: KeeperConnection, happened: int) -> None:
        if happened & select.EPOLLOUT:
            with link.lock:
                link.flush()
                if link.socket is not None and not link.unsent:
                    self._epoll.modify(link.socket.fileno(), select.EPOLLIN)
        if happened & ~select.EPOLLOUT:
            reports = link.receive()
            if reports is None:
                log.error("the keeper of %s is gone: another one takes its place", link.folder)
                self._lose(link, is_silent=False)
            else:
                self._hear(link, reports)

    def _hear(self, link: KeeperConnection, reports: list[dict[str, Any]]) -> None:
        ends: list[End] = []
        for report in reports:
            with self._hearing:  # of the others, each is as important
                self._hear_one(link, report, ends)
        if ends:
            self._heard_ends(ends)

    def _hear_one(self, link: KeeperConnection, report: dict[str, Any], ends: list[End]) -> None:
        if "started" in report:
            self._heard_start(link, report["started"], report["at"])
        elif "ended" in report:
            ends.append(end_of(report["ended"], report))
        elif "refused" in report and report.get("unwritten"):
            self._pass_on(link, report["refused"], report["why"])
        elif "refused" in report:
            self._refuse(report["refused"], report["why"])
        elif "unkilled" in report:
            self._listener.unkilled(report["unkilled"], report["who"])
        elif "run" in report:
            log.error("run %s: %s", report["run"], report["trouble"])
        elif "trouble" in report:
            log.error("%s", report["trouble"])
        elif "shortage" in report:
            self._heard_shortage(link, report["shortage"])

    def _heard_start(self, link: KeeperConnection, run_id: str, at: float) -> None:
        link.runs[run_id] = None
        self._listener.started(run_id, moment_of(at))

    def _heard_shortage(self, link: KeeperConnection, text: str | None) -> None:
        link.shortage = text
        if text is not None:
            log.error("the keeper of %s: %s", link.folder, text)
        else:
            log.info("the keeper of %s lacks nothing any more", link.folder)

    def _heard_ends(self, ends: list[End]) -> None:
        for end in ends:
            self._drop(end.run_id)
        self._waiting += ends
        self._tell_ends()

    def _tell_ends(self) -> None:
        """Tell the listener of ends; what it cannot hear now it is told again: nobody else knows of them."""
        if not self._waiting:
            return
        with self._telling:
            self._listener.ended(self._waiting)
            self._waiting = []

    def _pass_on(self, link: KeeperConnection, run_id: str, why: str) -> None:
        """Give a start that a keeper could not write into its journal to another keeper, once."""
        with link.lock:
            order = link.runs.pop(run_id, None)
            ending = link.endings.pop(run_id, None)
        if order is None or run_id in self._passed_on or self._number == 1:
            self._refuse(run_id, why)
            return
        self._passed_on.add(run_id)
        self._move(link, {run_id: order}, {run_id: ending} if ending is not None else {})

    def _refuse(self, run_id: str, why: str) -> None:
        self._passed_on.discard(run_id)
        self._drop(run_id)
        self._of_run.pop(run_id, None)
        self._listener.refused(run_id, why)

    def _drop(self, run_id: str) -> None:
        link = self._of_run.get(run_id)
        if link is not None:
            link.runs.pop(run_id, None)
            link.endings.pop(run_id, None)
        self._passed_on.discard(run_id)

    # When a keeper is gone, or silent

    def _look(self) -> None:
        """Ask those that have been silent for a while to say something, and give up those that do not."""
        for link in self._links:
            silence = link.look()
            if silence == PING_LOOKS:
                with link.lock:
                    self._send(link, line_of({"ping": True}))
            elif silence >= SILENT_LOOKS:
                text = "the keeper of %s has not answered for %g s: it is killed, and another one takes its place"
                log.error(text, link.folder, (SILENT_LOOKS - 1) * LOOK_SECONDS)
                self._lose(link, is_silent=True)
            elif self._is_missing(link):
                self._summons.begin(link, is_silent=False)

    def _is_missing(self, link: KeeperConnection) -> bool:
        """Return whether a keeper is gone and nobody sees to it: there was no thread to be had."""
        return link.socket is None and link not in self._summons

    def _lose(self, link: KeeperConnection, is_silent: bool) -> None:
        if link.socket is not None:
            del self._by_descriptor[link.socket.fileno()]
        link.drop()
        wait = link.lost(self._clock.monotonic())
        if wait:
            text = "the connection to the keeper of %s was lost %d times in a row: the next one is made in %g s"
            log.error(text, link.folder, link.losses, wait)
        self._summons.begin(link, is_silent, wait)

    def _come(self, link: KeeperConnection, found: Connected | str) -> None:
        """Deal with what came of a summons."""
        if isinstance(found, str):
            log.error("%s", found)
            self._give_up_for_now(link, found)
        else:
            self._begin_again(link, *found)

    def _give_up_for_now(self, link: KeeperConnection, why: str) -> None:
        """Hand what was held for a keeper that cannot be had to the others; none of it has been given to any."""
        with link.lock:
            link.trouble = why
            held = {run_id: order for run_id in link.held if (order := link.runs.pop(run_id, None)) is not None}
            endings = {run_id: link.endings.pop(run_id) for run_id in held if run_id in link.endings}
            link.held.clear()
        self._move(link, held, endings)

    def _move(self, link: KeeperConnection, orders: Mapping[str, bytes], endings: Mapping[str, bytes]) -> None:
        """Give starts, and the orders to end them again, that a keeper has not taken to another one."""
        for run_id, order in orders.items():
            try:
                self._give(run_id, order, but=link)
            except StartError as error:
                self._refuse(run_id, str(error))
            else:
                if run_id in endings:
                    self.end(run_id, Cause(json.loads(endings[run_id])["cause"]))

    def _take(self, link: KeeperConnection, connection: socket.socket, greeting: Mapping[str, Any]) -> None:
        """Use a connection from now on. The link's lock is held, or nobody else knows the link yet."""
        self._epoll.register(connection.fileno(), select.EPOLLIN)  # first: one that nobody hears must not be used
        link.take(connection, bool(greeting.get("pongs")), self._clock.monotonic())
        link.doubt = greeting.get("doubt")
        self._by_descriptor[connection.fileno()] = link

    def _begin_again(self, link: KeeperConnection, connection: socket.socket, greeting: Mapping[str, Any]) -> None:
        """Go on with the keeper that took the place of another one; it knows from the journal what was going on."""
        told, doubt = greeting["runs"], greeting.get("doubt")
        is_whole = doubt in (None, link.doubt)  # what we gave its forerunner since then, and it does not know, was not taken
        with link.lock:
            held = set(link.held)
            self._take(link, connection, greeting)
            untaken = {run_id: order for run_id, order in link.runs.items() if run_id not in told and order is not None}
            for run_id, order in untaken.items():
                if is_whole or run_id in held:
                    self._send(link, order)  # it was never taken: its intent is written before anything is started
                else:
                    link.runs[run_id] = None
            for order in link.endings.values():
                self._send(link, order)
            recorded = [run_id for run_id, one in told.items() if one["end"] and run_id not in self._of_run]
            if recorded:
                self._send(link, line_of({"forget": recorded}))
        log.info("the keeper of %s is there again", link.folder)
        ends = [end_of(run_id, one["end"]) for run_id, one in told.items() if one["end"] and run_id in link.runs]
        if ends:
            self._heard_ends(ends)
        self._catch_up(link, told, doubt)

    def _catch_up(self, link: KeeperConnection, told: Mapping[str, Any], doubt: str | None) -> None:
        gone = f"its keeper was killed, and whether it was started is not known: {doubt or 'its journal is gone'}"
        for run_id, order in list(link.runs.items()):
            if run_id in told and order is not None and told[run_id]["start"]:
                self._heard_start(link, run_id, told[run_id]["start"]["at"])
            elif run_id not in told and order is None:
                self._heard_ends([End(run_id, None, self._clock.now(), lost=gone)])


def _others(folder: str, number: int) -> list[str]:
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.isdigit() and int(name) >= number]
