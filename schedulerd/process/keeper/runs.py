"""The runs of a keeper from the order to the recorded end: journal, process, control group and output of each."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

from ...core.clock import SystemClock
from ...core.faults import fault_point
from .child import Child, end_values, lost_values
from .children import Children
from .journal import KeeperJournal, reason_of
from .launch import NotStartedError, launch
from .output_cap import POLL_SECONDS, OutputCap
from .procfs import boot_id, marked, ticks
from .run_cgroups import RunCgroups

SYNC_SECONDS = 0.1  # how long ends may wait for the disk while there are runs to start
CAP_SECONDS = 0.02  # between two checks of outputs that grow
AGAIN_SECONDS = 1.0  # between two attempts to write the journal
POLLS_RUNS = "runs without a descriptor to spare are polled: raise LimitNOFILE= of the unit, or ulimit -Hn"
POLLS_OUTPUTS = "outputs that cannot be watched are polled: raise fs.inotify.max_user_watches and max_user_instances"

Report = Callable[[dict[str, Any]], None]


class KeeperRuns:
    """Starts, watches and ends the runs of the keeper on `folder`."""

    def __init__(
        self, folder: str, clock: SystemClock, epoll: select.epoll, report: Report, descriptors: int | None
    ) -> None:
        """`report` sends a report to the daemon, if one is connected; `descriptors` is the children's soft RLIMIT_NOFILE."""
        self._folder = folder
        self._clock = clock
        self._epoll = epoll
        self._report = report
        self._descriptors = descriptors
        self._refused_for: str | None = None  # the shortage because of which the last start was refused
        self._unsynced: list[str] = []  # runs whose end is noted, but neither on the disk nor reported
        self._synced_at = 0.0
        self.unwritten: str | None = None  # why the journal cannot be written
        self.cap_at: float | None = None  # monotonic: when outputs that grow are checked
        self._output_cap = OutputCap()
        self._groups = RunCgroups(os.path.basename(folder))
        self.children = Children(clock, epoll, self._groups, self._on_end, self._report_trouble, self.report_unkilled)
        boot = boot_id()
        self.journal = KeeperJournal(os.path.join(folder, "journal"), boot, clock.now())
        if self._output_cap.descriptor >= 0:
            epoll.register(self._output_cap.descriptor, select.EPOLLIN | select.EPOLLONESHOT)
        self._take_over(boot)
        self._groups.remove_others(self.journal.runs)

    # Runs of an earlier keeper

    def _take_over(self, boot: str) -> None:
        is_same_boot = self.journal.boot_before == boot
        for run_id, known in list(self.journal.runs.items()):
            if "end" not in known and not (is_same_boot and self._adopt(run_id, known)):
                self.journal.note("end", run_id, lost_values(known, is_same_boot, self._wall()))
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
            self.journal.note("start", run_id, start)
        child = Child(run_id, start["pid"], intent["since"], intent["grace"], intent["keep"])
        child.began = start["began"]
        if not self.children.adopt(child, intent["deadline"]):
            return False
        self._cap(run_id, intent)
        return True

    # Starts

    def start(self, orders: list[dict[str, Any]]) -> None:
        """Start children. All intents are written before the first start, all starts after the last one.

        A run whose intent cannot be written is not started: the next keeper would not know of it, and it would be started
        a second time.
        """
        fresh = {order["start"]: order for order in orders if order["start"] not in self.journal.runs}
        now = self._clock.monotonic()
        try:
            self.journal.intend({run_id: _intent(order, now) for run_id, order in fresh.items()})
        except OSError as error:
            self.unwritten = reason_of(error)
            why = f"the journal of its keeper, {self._folder}/journal, cannot be written: {self.unwritten}"
            for run_id in fresh:
                self._report({"refused": run_id, "why": why, "unwritten": True})
            return
        for run_id, order in fresh.items():
            self._start_one(run_id, order, now)
        fault_point("after_fork")
        self.journal.flush()

    def _start_one(self, run_id: str, order: dict[str, Any], now: float) -> None:
        at, since = self._wall(), self._clock.monotonic()
        try:
            pid = launch(order, self._make_group(run_id, order), self._descriptors)
        except NotStartedError as error:
            self._refused_for = str(error) if error.is_shortage else None
            self.journal.withdraw(run_id)
            self._report({"refused": run_id, "why": str(error)})
            return
        self._refused_for = None
        intent = self.journal.runs[run_id]["intent"]
        child = Child(run_id, pid, since, order["grace"], intent["keep"])
        self.journal.note("start", run_id, {"pid": pid, "began": ticks(self._clock.boottime()), "at": at})
        self.children.add(child, intent["deadline"])
        self._report({"started": run_id, "at": at})
        self._cap(run_id, intent)

    def _make_group(self, run_id: str, order: dict[str, Any]) -> str | None:
        """Return the file through which the process of a run enters its control group, None without one."""
        try:
            return self._groups.make(run_id, order.get("group") or {})
        except OSError as error:
            self._report({"trouble": f"it has no control group of its own: {error}", "run": run_id})
            return None

    def set_limits(self) -> None:
        """Enable controllers and set the limits of all runs again: they are lost when a daemon ends."""
        self._groups.enable_controllers()
        for run_id in self.children.by_run:
            try:
                self._groups.limit(run_id, self.journal.runs[run_id]["intent"].get("group") or {})
            except FileNotFoundError:
                continue  # its group was removed, or was never made
            except OSError as error:
                self._report({"trouble": f"cannot set the limits of its control group again: {error}", "run": run_id})

    # Outputs

    def _cap(self, run_id: str, intent: dict[str, Any]) -> None:
        self._report_troubles(self._output_cap.watch(run_id, intent["output"], intent["limit"]))

    def check_outputs(self, ready: dict[int, int]) -> None:
        """Check the outputs that have grown, CAP_SECONDS after the first event: not after each write."""
        now = self._clock.monotonic()
        if self._output_cap.descriptor in ready:
            self.cap_at = now + CAP_SECONDS
        elif self.cap_at is not None and now >= self.cap_at:
            self.cap_at = None
            self._report_troubles(self._output_cap.poll())
            if self._output_cap.descriptor >= 0:
                self._report_troubles(self._output_cap.check())
                self._epoll.modify(self._output_cap.descriptor, select.EPOLLIN | select.EPOLLONESHOT)
        if self.cap_at is None and self._output_cap.is_polling:
            self.cap_at = now + POLL_SECONDS

    # Ends

    def _on_end(self, child: Child, seconds: float) -> None:
        fault_point("before_result")
        values = end_values(child, seconds, self._wall())
        try:
            self._add_figures(child, values)
        finally:  # the end is reported even when its figures cannot be read
            self.journal.note("end", child.run_id, values)
            self._unsynced.append(child.run_id)

    def _add_figures(self, child: Child, values: dict[str, Any]) -> None:
        limits = self.journal.runs[child.run_id]["intent"].get("group") or {}
        values.update(self._groups.figures(child.run_id))
        if unkept := self._groups.unenforced(child.run_id, limits):
            values["unkept"] = unkept
        self._groups.remove(child.run_id)
        fates, troubles = self._output_cap.end(child.run_id, child.keeps_leftovers)
        values.update(dict.fromkeys(fates, True))
        self._report_troubles(troubles)

    @property
    def has_undelivered(self) -> bool:
        """Whether there are ends that neither the disk nor a daemon has."""
        return bool(self._unsynced) or self.journal.is_behind

    def on_greeted(self) -> None:
        """Note that the greeting has reported all ends."""
        self._unsynced.clear()

    def sync(self, is_connected: bool, has_orders: bool, at_once: bool = False) -> None:
        """Report the ends that are on the disk now.

        Ends that cannot be written are reported all the same when a daemon is connected.
        """
        now = self._clock.monotonic()
        if self._unsynced:
            self.journal.flush()
        is_due = bool(self._unsynced) and (at_once or not has_orders or now >= self._synced_at + SYNC_SECONDS)
        is_again = self.unwritten is not None or (not is_connected and self.journal.is_behind)
        if self.unwritten is not None and now < self._synced_at + AGAIN_SECONDS:  # the last attempt was just now
            is_written = False
        elif is_due or is_again:
            self._synced_at = now
            is_written = self._write()
        else:
            return
        if is_written or (is_due and is_connected):
            for run_id in self._unsynced:
                self._report({"ended": run_id, **self.journal.runs[run_id]["end"]})
            self._unsynced.clear()

    def _write(self) -> bool:
        """Write everything noted to the disk; return whether that succeeded."""
        try:
            self.journal.sync()
            if self.unwritten is not None:
                self.journal.probe()
        except OSError as error:
            self.unwritten = reason_of(error)
            return False
        self.unwritten = None
        return True

    # Reports

    def shortages(self) -> list[str]:
        """Return what the keeper lacks, in words that stay the same while it lasts."""
        found = [self._refused_for] if self._refused_for else []
        found += [f"it cannot write its journal, and starts nothing: {self.unwritten}"] if self.unwritten else []
        found += [POLLS_RUNS] if self.children.is_polling else []
        found += [POLLS_OUTPUTS] if self._output_cap.is_polling else []
        return found

    def report_unkilled(self, run_id: str, who: str) -> None:
        """Report processes of a run that survive SIGKILL."""
        self._report({"unkilled": run_id, "who": who})

    def _report_troubles(self, texts: list[str]) -> None:
        for text in texts:
            self._report_trouble(text)

    def _report_trouble(self, text: str) -> None:
        self._report({"trouble": text})

    def _wall(self) -> float:
        return self._clock.now().timestamp()


def _intent(order: dict[str, Any], now: float) -> dict[str, Any]:
    return {
        "since": now, "deadline": now + order["timeout"] if order.get("timeout") else None, "grace": order["grace"],
        "keep": bool(order.get("keep")), "output": order["output"], "limit": order.get("limit"), "group": order.get("group"),
        "who": order.get("who"),
    }  # fmt: skip
