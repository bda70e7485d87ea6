"""Planner, policy, ledger and dependencies as the daemon builds them, with an executor that the test holds in its hand."""

from schedulerd.core.concurrency import HostLoad
from schedulerd.core.errors import StoppingError
from schedulerd.core.models import Result, Status
from schedulerd.engine.dependencies import Dependencies
from schedulerd.engine.executor import Finished
from schedulerd.engine.lookup import last_success_at
from schedulerd.engine.planner import Planner
from schedulerd.engine.recovery import close_open_runs, queue_again, start_unstarted, watch_again
from schedulerd.engine.reload import JobDefinitions
from schedulerd.engine.scheduler import Scheduler
from schedulerd.engine.state import JobTable
from schedulerd.process.spec import KnownRun
from schedulerd.service.explanations import Explanations
from schedulerd.service.occurrences import Occurrences
from schedulerd.service.simulations import Simulations
from schedulerd.service.wait_reasons import WaitReasons


class Engine:
    """Everything between the configuration and the executor; runs end when the test says so, or at once."""

    def __init__(self, store, clock, jobs, ends_at_once=True, spread=0.0, pools=(), known=(), proven=False):
        """`known` are the runs that keepers know, as after a kill of the daemon alone; `proven` says that these are all."""
        self.store, self.clock, self.ends_at_once = store, clock, ends_at_once
        self.table = JobTable()
        self.scheduler = Scheduler(self.table, store, clock, "test")
        self.scheduler.launch_with(self)
        self.planner = Planner(clock, self.scheduler.on_due, spread_seconds=spread)
        self.dependencies = Dependencies(self.planner, store)
        self.scheduler.tell_ends(self.planner.plan_from_end, self.dependencies.follow)
        self.scheduler.hand_back_to(self.planner.put_back)
        self.scheduler.run_queue.wake_with(self.planner.wake_at)
        self.definitions = JobDefinitions(self.table, self.planner, self.scheduler, self.dependencies, store, clock)
        wait_reasons = WaitReasons(self.table, self.scheduler.run_queue)
        self.occurrences = Occurrences(self.table, store, clock, wait_reasons)
        self.explanations = Explanations(self.table, store, clock, wait_reasons)
        self.simulations = Simulations(self.table, store, clock)
        self.ends_as = lambda _run: Status.SUCCESS  # of those that end at once
        self.started, self.ordered, self.takes_orders = [], [], True
        self.scheduler.run_queue.measured_by = lambda: self.load
        self.load = HostLoad(0.0, 1e12)
        self.pools = dict(pools)
        kept = dict.fromkeys(known, KnownRun(clock.now()))
        left = close_open_runs(store, clock, {job.job_id: job for job in jobs}, kept, set(),
                               lambda _run_id: None if proven else "nothing proves it")  # fmt: skip
        self.apply(*jobs)
        watch_again(self.table, left.running, lambda _job_id: None, lambda job, run: self.started.append((job, run)))
        start_unstarted(self.table, self.scheduler, left.unstarted)
        queue_again(self.table, self.scheduler, left.waiting)
        self.definitions.start_up()

    def apply(self, *jobs):
        self.definitions.apply({job.job_id: job for job in jobs}, self.pools)

    def launch(self, job, run):
        self.started.append((job, run))
        if self.ends_at_once:
            self.finish(job, run, self.ends_as(run))

    def forget(self, run_ids):
        self.forgotten = run_ids

    def finish(self, job, run, status=Status.SUCCESS, **result):
        try:
            self.scheduler.may_start(run)
            run = self.scheduler.on_started(run, self.clock.now())
        except StoppingError:  # the executor would not start it, and say so in its end
            status = Status.FAILED
        ended = Result(status, message="it went wrong", **result)
        self.scheduler.on_finished([Finished(job, run, ended, self.clock.now(), 1.0)])

    def end(self, run_id, cause):
        """Note who is to end, as the executor is told; whether it takes the order is up to the test."""
        self.ordered.append((run_id, str(cause)))
        return self.takes_orders

    def tick(self, seconds=0.0):
        self.clock.advance(seconds)
        self.scheduler.tick(self.clock.now())
        self.planner.run_pending()
        assert self.scheduler.tick.trouble is self.planner.trouble is None
        self.settle()

    def last_success_at(self, run):
        return last_success_at(self.table, self.store, run, self.clock.now())

    def settle(self):
        for _ in range(4):
            self.store.finish([]).result(10)

    def rows(self, job_id):
        """Return the job's rows, oldest first."""
        return self.store.history(job_id, 100)[::-1]

    def said(self, job_id):
        return [(str(run.status), run.origin, run.scheduled_at) for run in self.rows(job_id)]
