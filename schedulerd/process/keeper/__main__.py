"""`python -m schedulerd.process.keeper FOLDER`: the keeper's loop.

It serves one daemon at a time on FOLDER/socket. Orders and reports are JSON objects, one a line:

| order               | meaning                                                                                    |
|---------------------|--------------------------------------------------------------------------------------------|
| start: RUN, …       | start a child (`argv`, `env`, `output`, …); a run that is known already is not started again |
| end: RUN, cause     | climb the kill ladder                                                                      |
| forget: [RUN, …]    | the daemon has recorded these ends                                                         |
| ping: true          | say something                                                                              |
| settled: true       | what earlier daemons left open is closed: whoever is not in the journal was never started  |

| report              | meaning                                                                                    |
|---------------------|--------------------------------------------------------------------------------------------|
| hello: VERSION, …   | who connects is told what runs and what has ended (`runs`), that pings are answered, why   |
|                     | runs that it does not know may have been started (`doubt`), and which it forgot            |
| started: RUN, at    | its child runs                                                                             |
| refused: RUN, why   | it could not be started; `unwritten`: because it could not be written into the journal     |
| ended: RUN, …       | how it ended; durable before it is said                                                    |
| unkilled: RUN, who  | what lives on of it although it was killed                                                 |
| trouble: TEXT       | something for the daemon's log                                                             |
| shortage: TEXT      | what the keeper lacks from now on; null when it lacks nothing any more                     |
| pong: true          | the answer to a ping                                                                       |

Without a daemon it goes on while it has children, or what the daemon has to be told and the journal does not take, and
then ends: what the daemon has to be told is in the journal.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from ... import __version__
from ...core.clock import SystemClock
from ...core.faults import fault_point
from ...host.descriptors import raise_limit
from .children import Child, Children, end_values, lost
from .daemon_connection import CHUNK, DaemonConnection
from .folder import KeeperFolder
from .journal import KeeperJournal, reason_of
from .launch import NotStartedError, launch
from .output_cap import POLL_SECONDS, OutputCap
from .procfs import boot_id, marked, ticks
from .run_cgroups import RunCgroups
from .steps import LASTS_SECONDS, Steps

STARTS_A_ROUND = 8  # then ends are looked at
SYNC_SECONDS = 0.1  # how long ends may wait for the disk while there is something to start
CAP_SECONDS = 0.02  # between two looks at files that grow
EXPECTING_SECONDS = 30.0  # how long the first daemon is waited for
POLLS_RUNS = "runs without a descriptor to spare are polled: raise LimitNOFILE= of the unit, or ulimit -Hn"
POLLS_OUTPUTS = "outputs that cannot be watched are polled: raise fs.inotify.max_user_watches and max_user_instances"
AGAIN_SECONDS = 1.0  # between two tries to write what could not be written
LONGEST_POLL = 3600.0  # epoll takes no more than 24 days
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)
# It ends when its work is done, and not by what a job sends to its parent.
IGNORED = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}


class Keeper:
    """One keeper on its folder."""

    def __init__(self, own: KeeperFolder, listener: socket.socket, descriptors: int | None = None) -> None:
        """`descriptors` is the soft RLIMIT_NOFILE of children; None is ours."""
        self._clock = SystemClock()
        folder, self._own, self._is_to_look = own.path, own, False
        self._descriptors = descriptors
        self._refused_for: str | None = None  # the shortage because of which the last start was refused
        self._shortage: str | None = None  # as it was told
        self._steps = Steps(self._clock)
        self._step = self._steps.step
        self._epoll = select.epoll()
        self._connection = DaemonConnection(self._clock, self._epoll, listener)
        self._orders = self._connection.orders
        self._unsynced: list[str] = []  # runs whose end is noted, and neither on the disk nor told yet
        self._unwritten: str | None = None  # why the journal cannot be written
        self._synced_at = 0.0
        self._cap_at: float | None = None  # when files that grow are looked at
        self._is_expecting = True  # a daemon that has just started us
        self._heard, heard = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(heard, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGHUP, self._look_soon)
        self._capping = OutputCap()
        self._folder = folder
        self._groups = RunCgroups(os.path.basename(folder))
        self._children = Children(self._clock, self._epoll, self._groups, self._ended, self._trouble, self._unkilled)
        boot = boot_id()
        self._journal = KeeperJournal(os.path.join(folder, "journal"), boot, self._clock.now())
        self._epoll.register(self._heard, select.EPOLLIN)
        if self._capping.descriptor >= 0:
            self._epoll.register(self._capping.descriptor, select.EPOLLIN | select.EPOLLONESHOT)
        self._take_over(boot)
        self._groups.remove_others(self._journal.runs)

    # What an earlier keeper left

    def _take_over(self, boot: str) -> None:
        is_same_boot = self._journal.boot_before == boot
        for run_id, known in list(self._journal.runs.items()):
            if "end" not in known and not (is_same_boot and self._adopt(run_id, known)):
                self._journal.note("end", run_id, lost(known, is_same_boot, self._wall()))
        self._write()

    def _adopt(self, run_id: str, known: dict[str, Any]) -> bool:
        intent, start = known.get("intent"), known.get("start")
        if intent is None:  # a line of the journal is damaged
            return False
        if start is None:  # killed between the start and its note
            found = marked(run_id)
            if found is None:
                return False
            start = {"pid": found.pid, "began": found.began, "at": self._wall()}
            self._journal.note("start", run_id, start)
        child = Child(run_id, start["pid"], intent["since"], intent["grace"], intent["keep"])
        child.began = start["began"]
        if not self._children.adopt(child, intent["deadline"]):
            return False
        self._cap(run_id, intent)
        return True

    # The loop

    def run(self) -> None:
        """Serve until there is nothing to do and nobody to do it for."""
        while self._connection.is_awaited or self._children.by_run or self._orders or self._is_expecting or self._owes():
            with self._step("the round"):
                self._round()
            if pause := self._steps.pause_seconds():
                select.select([], [], [], pause)

    def _owes(self) -> bool:
        """Return whether there is something to tell the next daemon that is not on the disk, and a way for it to come."""
        return (bool(self._unsynced) or self._journal.is_behind) and os.path.isdir(self._folder)

    def _round(self) -> None:
        ready = dict(self._epoll.poll(self._patience()))
        if not ready and self._is_expecting:
            self._is_expecting = False
        with self._step("the connection to the daemon"):
            self._receive(ready)
        with self._step("orders"):
            self._obey([self._orders.popleft() for _ in range(min(STARTS_A_ROUND, len(self._orders)))])
        with self._step("ends of runs"):
            self._hear(list(ready))
        with self._step("timeouts"):
            self._children.climb()
        with self._step("outputs"):
            self._look_at_outputs(ready)
        with self._step("the journal"):
            self._sync()
        with self._step("reports"):
            self._tell_shortage()
            self._connection.send()

    def _receive(self, ready: dict[int, int]) -> None:
        if self._is_to_look:
            self._restore()
        if self._connection.receive(ready):
            self._sync(at_once=True)  # nobody hears it: the greeting comes first, and tells these ends
            if self._connection.accept():
                self._greet()

    def _patience(self) -> float:
        """Return for how many seconds there is nothing to do."""
        if self._orders:
            return 0.0
        now = self._clock.monotonic()
        waits = [self._children.wait_seconds()]
        waits += [each - now for each in (self._cap_at, self._connection.accept_at) if each is not None]
        waits += [EXPECTING_SECONDS if self._is_expecting else None, LASTS_SECONDS if self._steps.failing else None]
        waits += [AGAIN_SECONDS if self._unwritten is not None else None]
        return max(0.0, min([LONGEST_POLL, *(each for each in waits if each is not None)]))

    def _hear(self, ready: list[int]) -> None:
        if self._heard in ready:
            with suppress(BlockingIOError):
                os.read(self._heard, CHUNK)
        self._children.hear(ready)

    # Files that somebody has removed

    def _look_soon(self, _number: int, _frame: object) -> None:
        self._is_to_look = True

    def _restore(self) -> None:
        self._is_to_look = False
        try:
            fresh = self._own.restore()
        except OSError as error:
            self._report({"trouble": f"the keeper's files were removed, and cannot be made again: {error}"})
            return
        if fresh is not None:
            self._connection.listen_on(fresh)

    # The daemon

    def _greet(self) -> None:
        self._is_expecting = False
        self._shortage = None
        self._set_limits()
        runs = {
            run_id: {
                "start": known.get("start"), "end": known.get("end"), "who": known.get("intent", {}).get("who"),
            }
            for run_id, known in self._journal.runs.items()
        }  # fmt: skip
        journal = self._journal
        doubts = {"doubt": journal.doubt, "forgotten": journal.forgotten, "forgotten_to": journal.forgotten_to}
        self._report({"hello": __version__, "pongs": True, "runs": runs, **doubts})
        self._unsynced.clear()  # they have just been told
        self._troubles(journal.troubles)
        journal.troubles.clear()
        for child in self._children.by_run.values():
            if child.unkilled is not None:
                self._unkilled(child.run_id, child.unkilled)
        if self._connection.trouble is not None:
            self._trouble(self._connection.trouble)
            self._connection.trouble = None

    def _set_limits(self) -> None:
        """Have controllers, and set the limits of what runs again: between two daemons there were none."""
        self._groups.hand_on()
        for run_id in self._children.by_run:
            try:
                self._groups.limit(run_id, self._journal.runs[run_id]["intent"].get("group") or {})
            except FileNotFoundError:
                continue  # its group is gone, or never was
            except OSError as error:
                self._report({"trouble": f"the limits of its control group cannot be set again: {error}", "run": run_id})

    def _report(self, line: dict[str, Any]) -> None:
        self._connection.report(line)

    # Orders

    def _obey(self, orders: list[dict[str, Any]]) -> None:
        starts = [order for order in orders if "start" in order]
        if starts:
            self._start(starts)
        for order in orders:
            if "end" in order:
                self._children.end(order["end"], order["cause"])
            elif "forget" in order:
                self._journal.forget(order["forget"])
            elif "ping" in order:
                self._report({"pong": True})
            elif "settled" in order:
                self._journal.settle()

    def _start(self, orders: list[dict[str, Any]]) -> None:
        """Start children; that they are to be is written of all before the first, and that they are of all after the last.

        What cannot be written is not started: a keeper in our place would not know of it, and it would be started again.
        """
        fresh = {order["start"]: order for order in orders if order["start"] not in self._journal.runs}
        now = self._clock.monotonic()
        try:
            self._journal.intend({run_id: _intent(order, now) for run_id, order in fresh.items()})
        except OSError as error:
            self._unwritten = reason_of(error)
            why = f"the journal of its keeper, {self._folder}/journal, cannot be written: {self._unwritten}"
            for run_id in fresh:
                self._report({"refused": run_id, "why": why, "unwritten": True})
            return
        for run_id, order in fresh.items():
            self._start_one(run_id, order, now)
        fault_point("after_fork")
        self._journal.flush()

    def _start_one(self, run_id: str, order: dict[str, Any], now: float) -> None:
        at, since = self._wall(), self._clock.monotonic()
        try:
            pid = launch(order, self._group(run_id, order), self._descriptors)
        except NotStartedError as error:
            self._refused_for = str(error) if error.is_shortage else None
            self._journal.withdraw(run_id)
            self._report({"refused": run_id, "why": str(error)})
            return
        self._refused_for = None
        intent = self._journal.runs[run_id]["intent"]
        child = Child(run_id, pid, since, order["grace"], intent["keep"])
        self._journal.note("start", run_id, {"pid": pid, "began": ticks(self._clock.boottime()), "at": at})
        self._children.add(child, intent["deadline"])
        self._report({"started": run_id, "at": at})
        self._cap(run_id, intent)

    def _group(self, run_id: str, order: dict[str, Any]) -> str | None:
        """Return the file through which a run's process enters its control group, if it has one."""
        try:
            return self._groups.make(run_id, order.get("group") or {})
        except OSError as error:
            self._report({"trouble": f"it has no control group of its own: {error}", "run": run_id})
            return None

    def _cap(self, run_id: str, intent: dict[str, Any]) -> None:
        self._troubles(self._capping.watch(run_id, intent["output"], intent["limit"]))

    def _troubles(self, texts: list[str]) -> None:
        for text in texts:
            self._trouble(text)

    def _trouble(self, text: str) -> None:
        self._report({"trouble": text})

    def _tell_shortage(self) -> None:
        """Tell what is lacking, when that has changed."""
        lacking = [self._refused_for] if self._refused_for else []
        lacking += [f"it cannot write its journal, and starts nothing: {self._unwritten}"] if self._unwritten else []
        lacking += [POLLS_RUNS] if self._children.is_polling else []
        lacking += [POLLS_OUTPUTS] if self._capping.is_polling else []
        lacking += self._steps.failing
        text = "; ".join(lacking) or None
        if text != self._shortage and self._connection.is_there:
            self._shortage = text
            self._report({"shortage": text})

    # Ends

    def _unkilled(self, run_id: str, who: str) -> None:
        self._report({"unkilled": run_id, "who": who})

    def _ended(self, child: Child, seconds: float) -> None:
        fault_point("before_result")
        values = end_values(child, seconds, self._wall())
        try:
            self._add_figures(child, values)
        finally:  # whatever happens to the figures: the end is told
            self._journal.note("end", child.run_id, values)
            self._unsynced.append(child.run_id)

    def _add_figures(self, child: Child, values: dict[str, Any]) -> None:
        limits = self._journal.runs[child.run_id]["intent"].get("group") or {}
        values.update(self._groups.figures(child.run_id))
        if unkept := self._groups.unkept(child.run_id, limits):
            values["unkept"] = unkept
        self._groups.remove(child.run_id)
        fates, troubles = self._capping.end(child.run_id, child.keeps_leftovers)
        values.update(dict.fromkeys(fates, True))
        self._troubles(troubles)

    def _sync(self, at_once: bool = False) -> None:
        """Report ends that are on the disk now. When they cannot be there they are reported all the same, if a daemon is."""
        now = self._clock.monotonic()
        if self._unsynced:
            self._journal.flush()
        is_due = bool(self._unsynced) and (at_once or not self._orders or now >= self._synced_at + SYNC_SECONDS)
        is_again = self._unwritten is not None or (not self._connection.is_there and self._journal.is_behind)
        if self._unwritten is not None and now < self._synced_at + AGAIN_SECONDS:  # it was just tried
            is_written = False
        elif is_due or is_again:
            self._synced_at = now
            is_written = self._write()
        else:
            return
        if is_written or (is_due and self._connection.is_there):
            for run_id in self._unsynced:
                self._report({"ended": run_id, **self._journal.runs[run_id]["end"]})
            self._unsynced.clear()

    def _write(self) -> bool:
        """Have on the disk what was noted, if that can be; return whether it is."""
        try:
            self._journal.sync()
            if self._unwritten is not None:
                self._journal.probe()
        except OSError as error:
            self._unwritten = reason_of(error)
            return False
        self._unwritten = None
        return True

    def _look_at_outputs(self, ready: dict[int, int]) -> None:
        """Look at files that have grown, but not at each of their bytes: a moment after the first."""
        now = self._clock.monotonic()
        if self._capping.descriptor in ready:
            self._cap_at = now + CAP_SECONDS
        elif self._cap_at is not None and now >= self._cap_at:
            self._cap_at = None
            self._troubles(self._capping.poll())
            if self._capping.descriptor >= 0:
                self._troubles(self._capping.look())
                self._epoll.modify(self._capping.descriptor, select.EPOLLIN | select.EPOLLONESHOT)
        if self._cap_at is None and self._capping.is_polling:
            self._cap_at = now + POLL_SECONDS

    def _wall(self) -> float:
        return self._clock.now().timestamp()


def _intent(order: dict[str, Any], now: float) -> dict[str, Any]:
    return {
        "since": now, "deadline": now + order["timeout"] if order.get("timeout") else None, "grace": order["grace"],
        "keep": bool(order.get("keep")), "output": order["output"], "limit": order.get("limit"), "group": order.get("group"),
        "who": order.get("who"),
    }  # fmt: skip


def main(folder: str, ready: int, name: str = "", descriptors: int | None = None) -> int:
    """Keep children until there is nothing left to do; 75 when another keeper has the folder.

    A byte is written to the descriptor `ready` once the socket is there. `name` is the abstract address of the folder,
    `descriptors` the children's soft RLIMIT_NOFILE.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # blocked signals are inherited: no end would be heard of
    raise_limit()
    os.closerange(max(ready, 2) + 1, os.sysconf("SC_OPEN_MAX"))  # nothing that the daemon was started with is for children
    os.set_inheritable(ready, False)
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    own = KeeperFolder(folder, f"\0{name}" if name else None)
    if not own.lock():
        return 75
    keeper = Keeper(own, own.listen(), descriptors)
    own.publish()
    os.write(ready, b"1")
    os.close(ready)
    keeper.run()
    own.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:])))
