"""Who hears what the supervisor tells, and keeps it for the test."""

import queue


class Heard:
    """Keeps starts (run and time), refusals (run and reason), ends, and who could not be killed (run and reason)."""

    def __init__(self):
        self.starts, self.refusals, self.ends = queue.SimpleQueue(), queue.SimpleQueue(), queue.SimpleQueue()
        self.unkilled_runs = queue.SimpleQueue()

    def on_child_started(self, run_id, at):
        self.starts.put((run_id, at))

    def on_child_refused(self, run_id, why):
        self.refusals.put((run_id, why))

    def on_children_ended(self, ends):
        for end in ends:
            self.ends.put(end)

    def on_child_unkilled(self, run_id, who):
        self.unkilled_runs.put((run_id, who))
