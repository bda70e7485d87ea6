"""The engine as the daemon builds it, with a launcher that the test controls."""

from schedulerd.core.concurrency import HostLoad
from schedulerd.core.errors import StoppingError
from schedulerd.core.models import Result, Status
from schedulerd.engine import engine
from schedulerd.engine.launcher import Finished
from schedulerd.engine.recovery import close_open_runs
from schedulerd.process.spec import KnownRun
from schedulerd.service.explanations import Explanations
from schedulerd.service.occurrences import Occurrences
from schedulerd.service.simulations import Simulations
from schedulerd.service.wait_reasons import WaitReasons


class Engine(engine.Engine):
    """The engine, which is its own launcher: runs end when the test says so, or at once."""

    def __init__(self, store, clock, jobs, ends_at_once=True, spread=0.0, pools=(), known=(), proven=False):
        """`known` are the runs that keepers know, as after a kill of the daemon alone; `proven` says that these are all."""
        super().__init__(store, clock, self, "test", spread_seconds=spread, measure=lambda: self.load)
        self.ends_at_once = ends_at_once
        wait_reasons = WaitReasons(self.table, self.run_queue)
        self.occurrences = Occurrences(self.table, store, clock, wait_reasons)
        self.explanations = Explanations(self.table, store, clock, wait_reasons)
        self.simulations = Simulations(self.table, store, clock)
        self.ends_as = lambda _run: Status.SUCCESS  # of those that end at once
        self.started, self.ordered, self.takes_orders = [], [], True
        self.load = HostLoad(0.0, 1e12)
        self.pools = dict(pools)
        kept = dict.fromkeys(known, KnownRun(clock.now()))
        left = close_open_runs(store, clock, {job.job_id: job for job in jobs}, kept, set(),
                               lambda _run_id: None if proven else "nothing proves it")  # fmt: skip
        self.apply(*jobs)
        self.watch_again(left.running, lambda _job_id: None)
        self.start_up(left)

    def apply(self, *jobs):
        self.definitions.apply({job.job_id: job for job in jobs}, self.pools)

    def adopt(self, job, run, listener):
        assert listener is self.lifecycle
        self.started.append((job, run))

    def launch(self, job, run, listener):
        assert listener is self.lifecycle
        self.started.append((job, run))
        if self.ends_at_once:
            self.finish(job, run, self.ends_as(run))

    def forget(self, run_ids):
        self.forgotten = run_ids

    def finish(self, job, run, status=Status.SUCCESS, **result):
        try:
            self.lifecycle.may_start(run)
            run = self.lifecycle.on_started(run, self.clock.now())
        except StoppingError:  # the executor would not start it, and say so in its end
            status = Status.FAILED
        ended = Result(status, message="it went wrong", **result)
        self.lifecycle.on_finished([Finished(job, run, ended, self.clock.now(), 1.0)])

    def end(self, run_id, cause):
        """Note who is to end, as the executor is told; whether it takes the order is up to the test."""
        self.ordered.append((run_id, str(cause)))
        return self.takes_orders

    def advance(self, seconds=0.0):
        self.clock.advance(seconds)
        self.tick(self.clock.now())
        self.planner.run_pending()
        assert self.trouble is None
        self.settle()

    def last_success_at(self, run):
        return self.lifecycle.last_success_at(run)

    def settle(self):
        for _ in range(4):
            self.store.finish([]).result(10)

    def rows(self, job_id):
        """Return the job's rows, oldest first."""
        return self.store.history(job_id, 100)[::-1]

    def said(self, job_id):
        return [(str(run.status), run.origin, run.scheduled_at) for run in self.rows(job_id)]
