"""The seam to the `schedule` library, on a clock that the test holds in its hand."""

import queue
from datetime import timedelta

import pytest
import schedule

from schedulerd.clock import ManualClock
from schedulerd.planner import Planner
from schedulerd.triggers import CronTrigger, IntervalTrigger
from tests.support.builders import NOON

MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock():
    return ManualClock(NOON)


def planner_for(clock, on_due=None):
    due = []

    def note(batch, _now):
        due.append([(each.job_id, list(each.due.times)) for each in batch])
        return []

    return Planner(clock, on_due or note), due


def test_it_is_the_librarys_scheduler_with_its_registry(clock):
    planner, _ = planner_for(clock)
    planner.plan("a", IntervalTrigger(60), NOON)

    assert isinstance(planner, schedule.Scheduler)
    assert [job.job_id for job in planner.get_jobs("a")] == ["a"]
    assert isinstance(planner.jobs[0], schedule.Job)


def test_nothing_is_due_before_its_time(clock):
    planner, due = planner_for(clock)
    planner.plan("a", IntervalTrigger(60), NOON)
    clock.advance(59.999)
    planner.run_pending()

    assert due == []
    assert planner.next_time() == NOON + MINUTE


def test_what_is_due_together_is_handed_over_together_in_order(clock):
    planner, due = planner_for(clock)
    planner.plan("late", IntervalTrigger(60), NOON)
    planner.plan("early", IntervalTrigger(30), NOON)
    clock.advance(60)
    planner.run_pending()

    assert due == [[("early", [NOON + MINUTE / 2, NOON + MINUTE]), ("late", [NOON + MINUTE])]]


def test_a_late_look_does_not_shift_the_times(clock):
    planner, due = planner_for(clock)
    planner.plan("a", IntervalTrigger(60), NOON)
    for seconds in (61, 59.5, 70):
        clock.advance(seconds)
        planner.run_pending()

    assert [times for [(_, times)] in due] == [[NOON + MINUTE], [NOON + 2 * MINUTE], [NOON + 3 * MINUTE]]


def test_a_forward_step_finds_all_that_was_passed_over(clock):
    planner, due = planner_for(clock)
    planner.plan("a", CronTrigger("*/20 * * * *"), NOON)
    clock.step(NOON + 60 * MINUTE)
    planner.run_pending()

    assert due == [[("a", [NOON + 20 * MINUTE, NOON + 40 * MINUTE, NOON + 60 * MINUTE])]]


def test_a_backward_step_runs_nothing_again(clock):
    planner, due = planner_for(clock)
    planner.plan("a", IntervalTrigger(60), NOON)
    clock.advance(60)
    planner.run_pending()
    clock.step(NOON)
    for _ in range(3):
        clock.advance(30)
        planner.run_pending()

    assert len(due) == 1


def test_a_job_whose_trigger_fails_does_not_cost_the_others_theirs(clock, caplog):
    class Broken(IntervalTrigger):
        def next_after(self, instant):
            if instant > NOON:
                raise RuntimeError("broken")
            return super().next_after(instant)

    planner, due = planner_for(clock)
    planner.plan("broken", Broken(60), NOON)
    planner.plan("fine", IntervalTrigger(60), NOON)
    clock.advance(60)
    planner.run_pending()

    assert due == [[("fine", [NOON + MINUTE])]]
    assert "broken: its next time could not be computed" in caplog.text


def test_what_could_not_be_handed_over_is_handed_over_again(clock):
    handed = []

    def on_due(batch, _now):
        handed.append([list(each.due.times) for each in batch])
        if len(handed) == 1:
            raise OSError("no")
        return []

    planner, _ = planner_for(clock, on_due=on_due)
    planner.plan("a", IntervalTrigger(60), NOON)
    clock.advance(60)
    with pytest.raises(OSError, match="no"):
        planner.run_pending()
    clock.advance(10)
    planner.run_pending()

    assert handed[0][0] == [NOON + MINUTE]
    assert NOON + MINUTE in handed[1][0]


def test_only_what_could_not_be_decided_is_handed_over_again(clock):
    handed = []

    def on_due(batch, _now):
        handed.append([each.job_id for each in batch])
        return [each for each in batch if each.job_id == "bad" and len(handed) == 1]

    planner, _ = planner_for(clock, on_due)
    for name in ("good", "bad"):
        planner.plan(name, IntervalTrigger(60), NOON)
    clock.advance(60)
    planner.run_pending()
    clock.advance(10)
    planner.run_pending()

    assert handed == [["good", "bad"], ["bad"]]


def test_a_new_plan_replaces_the_old_one_and_an_end_of_it_ends_it(clock):
    planner, due = planner_for(clock)
    planner.plan("a", IntervalTrigger(60), NOON)
    planner.plan("a", IntervalTrigger(90), NOON)
    clock.advance(60)
    planner.run_pending()
    planner.unplan(["a", "unknown"])
    clock.advance(600)
    planner.run_pending()

    assert due == []
    assert planner.jobs == []
    assert planner.next_time() is None


def test_the_loop_goes_on_after_an_error_and_ends_when_told(clock):
    seen: queue.SimpleQueue = queue.SimpleQueue()

    def on_due(batch, now):
        seen.put(now)
        if seen.qsize() == 1:
            raise RuntimeError("once")
        return []

    planner = Planner(clock, on_due)
    planner.plan("a", IntervalTrigger(60), NOON)
    planner.start()
    for _ in range(3):
        clock.advance(60)
        seen.get(timeout=10)
    planner.stop()

    clock.advance(600)
    assert seen.empty()


def test_looking_costs_the_same_with_many_jobs_that_are_not_due(clock):
    class Counted(IntervalTrigger):
        asked = 0

        def next_after(self, instant):
            Counted.asked += 1
            return super().next_after(instant)

    planner, _ = planner_for(clock)
    for number in range(2000):
        planner.plan(f"job{number}", Counted(86400), NOON)
    planned = Counted.asked
    for _ in range(100):
        clock.advance(1)
        planner.run_pending()

    assert Counted.asked == planned
