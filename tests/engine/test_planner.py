"""The seam to the `schedule` library, on a clock that the test holds in its hand."""

import queue
from datetime import timedelta

import pytest
import schedule

from schedulerd.core.models import Origin
from schedulerd.core.trigger import Occurrence
from schedulerd.engine.planner import Planner
from schedulerd.engine.timetable import Timetable
from schedulerd.triggers.factory import CronTrigger, IntervalTrigger, trigger_from
from tests.support.builders import NOON
from tests.support.manual_clock import ManualClock

MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock():
    return ManualClock(NOON)


def planner_for(clock, on_due=None):
    due = []

    def note(batch, _now):
        due.append([(each.job_id, [one.scheduled_at for one in each.due.occurrences]) for each in batch])
        return []

    return Planner(Timetable(clock), clock, on_due or note), due


def test_it_is_the_librarys_scheduler_with_its_registry(clock):
    planner, _ = planner_for(clock)
    planner.timetable.plan("a", IntervalTrigger(60), NOON)

    assert isinstance(planner.timetable, schedule.Scheduler)
    assert [job.job_id for job in planner.timetable.get_jobs("a")] == ["a"]
    assert isinstance(planner.timetable.jobs[0], schedule.Job)


def test_nothing_is_due_before_its_time(clock):
    planner, due = planner_for(clock)
    planner.timetable.plan("a", IntervalTrigger(60), NOON)
    clock.advance(59.999)
    planner.run_pending()

    assert due == []
    assert planner.timetable.next_time() == NOON + MINUTE


def test_what_is_due_together_is_handed_over_together_in_order(clock):
    planner, due = planner_for(clock)
    planner.timetable.plan("late", IntervalTrigger(60), NOON)
    planner.timetable.plan("early", IntervalTrigger(30), NOON)
    clock.advance(60)
    planner.run_pending()

    assert due == [[("early", [NOON + MINUTE / 2, NOON + MINUTE]), ("late", [NOON + MINUTE])]]


def test_a_late_look_does_not_shift_the_times(clock):
    planner, due = planner_for(clock)
    planner.timetable.plan("a", IntervalTrigger(60), NOON)
    for seconds in (61, 59.5, 70):
        clock.advance(seconds)
        planner.run_pending()

    assert [times for [(_, times)] in due] == [[NOON + MINUTE], [NOON + 2 * MINUTE], [NOON + 3 * MINUTE]]


def test_a_forward_step_finds_all_that_was_passed_over(clock):
    planner, due = planner_for(clock)
    planner.timetable.plan("a", CronTrigger("*/20 * * * *"), NOON)
    clock.step(NOON + 60 * MINUTE)
    planner.run_pending()

    assert due == [[("a", [NOON + 20 * MINUTE, NOON + 40 * MINUTE, NOON + 60 * MINUTE])]]


def test_after_a_backward_step_times_come_again_and_say_so(clock):
    handed = []

    def on_due(batch, _now):
        handed.append([(each.due.occurrences[0].scheduled_at, each.is_again) for each in batch])
        return []

    planner = Planner(Timetable(clock), clock, on_due)
    planner.timetable.plan("a", IntervalTrigger(60), NOON)
    clock.advance(60)
    planner.run_pending()
    clock.step(NOON)
    for _ in range(4):
        clock.advance(30)
        planner.run_pending()

    minutes = [NOON + MINUTE, NOON + MINUTE, NOON + 2 * MINUTE]
    assert handed == [[(minutes[0], False)], [(minutes[1], True)], [(minutes[2], False)]]


def test_a_plan_from_the_future_goes_on_now_and_says_that_times_come_again(clock):
    handed = []

    def on_due(batch, _now):
        handed.extend((each.due.occurrences[0].scheduled_at, each.is_again) for each in batch)
        return []

    planner = Planner(Timetable(clock), clock, on_due)
    planner.timetable.plan("a", IntervalTrigger(60), NOON + 10 * MINUTE)
    clock.advance(60)
    planner.run_pending()

    assert handed == [(NOON + MINUTE, True)]


def test_a_step_forward_is_told_as_the_cause_of_what_is_late(clock):
    causes = []

    def on_due(batch, _now):
        causes.extend(each.due.cause for each in batch)
        return []

    planner = Planner(Timetable(clock), clock, on_due)
    planner.timetable.plan("a", CronTrigger("*/20 * * * *"), NOON)
    clock.step(NOON + 55 * MINUTE)
    planner.run_pending()
    clock.sleep(3600)
    planner.run_pending()
    clock.advance(25 * 60)
    planner.run_pending()

    assert causes == ["the clock was set forward by 55m", "the host slept for 1h", "the daemon was held up for 25m"]


def test_many_overdue_jobs_are_looked_at_one_by_one_and_do_not_delay_what_is_on_time(clock):
    started = {}

    def on_due(batch, now):
        started.update({each.job_id: now for each in batch})
        return []

    planner = Planner(Timetable(clock, 60), clock, on_due)
    for number in range(500):
        planner.timetable.plan(f"late{number}", CronTrigger("0 * * * *"), NOON - timedelta(hours=5), most=1)
    planner.timetable.plan("on_time", IntervalTrigger(1), NOON)
    for _ in range(60 * 20):
        clock.advance(0.05)
        planner.run_pending()
        late_by_now = sum(at <= NOON + timedelta(seconds=1) for name, at in started.items() if name != "on_time")
        if clock.now() == NOON + timedelta(seconds=1):
            assert started["on_time"] == clock.now()
            assert late_by_now == 10

    assert len(started) == 501
    assert max(started[f"late{number}"] for number in range(500)) < NOON + MINUTE


def test_many_that_are_due_together_are_handed_over_in_growing_portions(clock):
    planner, due = planner_for(clock)
    for number in range(1000):
        planner.timetable.plan(f"job-{number:04}", IntervalTrigger(60), NOON)
    clock.advance(60)
    planner.run_pending()

    assert [job_id for portion in due for job_id, _ in portion] == [f"job-{number:04}" for number in range(1000)]
    assert [len(portion) for portion in due] == [50, 250, 700]


def test_a_portion_that_fails_costs_the_others_nothing(clock):
    portions = []

    def stumble_once(batch, _now):
        portions.append([each.job_id for each in batch])
        if len(portions) == 2:
            raise OSError("no space left")
        return []

    planner, _ = planner_for(clock, stumble_once)
    for number in range(310):
        planner.timetable.plan(f"job-{number:03}", IntervalTrigger(3600), NOON)
    clock.advance(3600)
    planner.run_pending()
    clock.advance(6)
    planner.run_pending()

    assert [len(portion) for portion in portions] == [50, 250, 10, 50, 200]
    assert portions[3] + portions[4] == portions[1]


def test_what_is_left_undecided_is_looked_at_when_it_is_wanted(clock):
    handed = []

    def on_due(batch, now):
        (each,) = batch
        times = [one.scheduled_at for one in each.due.occurrences]
        handed.append((now - NOON, len(times)))
        return [each.left(times[1], now + MINUTE / 2)] if len(times) > 1 else []

    planner = Planner(Timetable(clock), clock, on_due)
    planner.timetable.plan("a", CronTrigger("* * * * *"), NOON - 3 * MINUTE)
    for _ in range(5):
        planner.run_pending()
        clock.advance(15)

    assert handed == [(0 * MINUTE, 3), (MINUTE / 2, 2), (MINUTE, 2)]


def test_a_job_that_counts_from_its_end_waits_until_it_is_told_of_it(clock):
    planner, due = planner_for(clock)
    planner.timetable.plan("a", trigger_from({"every": "1m", "after": "finish"}), NOON)
    clock.advance(60)
    planner.run_pending()
    clock.advance(3600)
    planner.run_pending()
    assert due == [[("a", [NOON + MINUTE])]]
    assert planner.timetable.next_time() is None
    assert planner.timetable.plan_from_end("a", clock.now()) == clock.now() + MINUTE
    clock.advance(60)
    planner.run_pending()

    assert due[1] == [("a", [clock.now()])]


def test_what_is_due_once_is_handed_over_with_its_reason(clock):
    handed = []

    def on_due(batch, _now):
        handed.extend(batch)
        return [each.all_left(clock.now() + MINUTE) for each in batch] if len(handed) == 1 else []

    planner = Planner(Timetable(clock), clock, on_due)
    planner.timetable.plan_once("a", Occurrence(NOON, NOON + MINUTE), Origin.AFTER, {"after": {"b": "id"}})
    for _ in range(4):
        planner.run_pending()
        clock.advance(60)

    assert [(each.origin, each.details) for each in handed] == [(Origin.AFTER, {NOON: {"after": {"b": "id"}}})] * 2


def test_a_blackout_holds_back_what_is_overdue_until_it_ends(clock):
    planner, due = planner_for(clock)
    trigger = trigger_from({"cron": "0 * * * *", "blackout": "11:30..14:10"})
    planner.timetable.plan("a", trigger, NOON - timedelta(hours=1, minutes=10))  # 11:00 was missed, and 12:00 is forbidden
    planner.run_pending()
    assert due == []
    clock.step(NOON + timedelta(hours=2, minutes=10))
    planner.run_pending()

    assert [at.hour for at in due[0][0][1]] == [11, 12, 13, 14]


def test_a_job_whose_trigger_fails_does_not_cost_the_others_theirs(clock, caplog):
    class Broken(IntervalTrigger):
        def next_after(self, instant):
            if instant > NOON:
                raise RuntimeError("broken")
            return super().next_after(instant)

    planner, due = planner_for(clock)
    planner.timetable.plan("broken", Broken(60), NOON)
    planner.timetable.plan("fine", IntervalTrigger(60), NOON)
    clock.advance(60)
    planner.run_pending()

    assert due == [[("fine", [NOON + MINUTE])]]
    for _ in range(10):
        clock.advance(5)
        planner.run_pending()

    assert caplog.text.count("broken: its next time could not be computed") == 1
    assert planner.trouble == "the next times of broken cannot be computed (1 job)"


def test_what_could_not_be_handed_over_is_handed_over_again(clock):
    handed = []

    def on_due(batch, _now):
        handed.append([[one.scheduled_at for one in each.due.occurrences] for each in batch])
        if len(handed) == 1:
            raise OSError("no")
        return []

    planner, _ = planner_for(clock, on_due=on_due)
    planner.timetable.plan("a", IntervalTrigger(60), NOON)
    clock.advance(60)
    planner.run_pending()
    assert planner.trouble == "the decision about what is due: OSError: no"
    clock.advance(10)
    planner.run_pending()

    assert handed[0][0] == [NOON + MINUTE]
    assert NOON + MINUTE in handed[1][0]
    assert planner.trouble is None


def test_only_what_could_not_be_decided_is_handed_over_again(clock):
    handed = []

    def on_due(batch, _now):
        handed.append([each.job_id for each in batch])
        return [each.all_left(clock.now()) for each in batch if each.job_id == "bad" and len(handed) == 1]

    planner, _ = planner_for(clock, on_due)
    for name in ("good", "bad"):
        planner.timetable.plan(name, IntervalTrigger(60), NOON)
    clock.advance(60)
    planner.run_pending()
    clock.advance(10)
    planner.run_pending()

    assert handed == [["good", "bad"], ["bad"]]


def test_a_new_plan_replaces_the_old_one_and_an_end_of_it_ends_it(clock):
    planner, due = planner_for(clock)
    planner.timetable.plan("a", IntervalTrigger(60), NOON)
    planner.timetable.plan("a", IntervalTrigger(90), NOON)
    clock.advance(60)
    planner.run_pending()
    planner.timetable.unplan(["a", "unknown"])
    clock.advance(600)
    planner.run_pending()

    assert due == []
    assert planner.timetable.jobs == []
    assert planner.timetable.next_time() is None


def test_the_loop_goes_on_after_an_error_and_ends_when_told(clock):
    seen: queue.SimpleQueue = queue.SimpleQueue()

    def on_due(batch, now):
        seen.put(now)
        if seen.qsize() == 1:
            raise RuntimeError("once")
        return []

    planner = Planner(Timetable(clock), clock, on_due)
    planner.timetable.plan("a", IntervalTrigger(60), NOON)
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
        planner.timetable.plan(f"job{number}", Counted(86400), NOON)
    planned = Counted.asked
    for _ in range(100):
        clock.advance(1)
        planner.run_pending()

    assert Counted.asked == planned


def test_a_job_with_nothing_due_at_its_time_is_not_looked_at_for_ever(clock):
    class Wrong(IntervalTrigger):
        def count(self, after, upto):
            return 5  # more than there are

        def occurrence_after(self, scheduled_at):
            found = super().occurrence_after(scheduled_at)
            return found if scheduled_at == NOON else Occurrence(found.scheduled_at, found.start_at + 2 * MINUTE)

    planner, _ = planner_for(clock)
    planner.timetable.plan("a", Wrong(60), NOON, most=1)
    clock.advance(120)
    planner.run_pending()

    assert planner.timetable.next_time() > clock.now()


def test_what_is_put_off_is_looked_at_again_when_its_next_time_comes(clock):
    handed = {}

    def on_due(batch, now):
        for each in batch:
            handed.setdefault(each.job_id, []).append((now, each.due.occurrences[-1].start_at))
        return []

    planner = Planner(Timetable(clock), clock, on_due)
    for number in range(300):
        planner.timetable.plan(f"late{number:03}", CronTrigger("0 * * * *"), NOON - timedelta(hours=5), most=1)
    planner.timetable.plan("often", CronTrigger("5-59/10 * * * * *"), NOON - timedelta(hours=5), most=1)
    for _ in range(250):
        clock.advance(0.1)
        planner.run_pending()

    late = [(now - at).total_seconds() for now, at in handed["often"]]
    assert len(late) == 4
    assert max(late[1:]) < 0.2  # the first was overdue


def test_what_an_old_plan_left_is_handed_over_as_void_and_does_not_touch_the_new_plan(clock):
    planner, handed = None, []

    def on_due(batch, now):
        handed.extend(batch)
        if len(handed) > 1:
            return []
        planner.timetable.plan("a", IntervalTrigger(420), now)  # a reload, while the old plan is being decided about
        return [each.all_left(now) for each in batch]

    planner = Planner(Timetable(clock), clock, on_due)
    planner.timetable.plan("a", CronTrigger("* * * * *"), NOON - 60 * MINUTE)
    for _ in range(2):
        planner.run_pending()
        clock.advance(1)

    assert [(each.first, each.is_void) for each in handed] == [(NOON - 59 * MINUTE, False), (NOON - 59 * MINUTE, True)]
    assert planner.timetable.next_time() == IntervalTrigger(420).next_after(NOON)


def test_plans_that_were_replaced_leave_no_trace(clock):
    planner, _ = planner_for(clock)
    for _ in range(60):
        for number in range(100):
            planner.timetable.plan(f"job{number}", CronTrigger("0 0 1 1 *"), NOON)

    assert len(planner.timetable._heap) < 2000


def test_back_and_forth_within_seconds_hands_nothing_over_twice(clock):
    planner, due = planner_for(clock)
    for name, trigger in (
        ("cron", CronTrigger("0 * * * *")),
        ("half", IntervalTrigger(1800)),
        ("fixed", CronTrigger("0 13 * * *")),
    ):
        planner.timetable.plan(name, trigger, NOON + timedelta(minutes=119))
    clock.step(NOON + timedelta(hours=2))
    planner.run_pending()
    assert sorted(job for batch in due for job, _ in batch) == ["cron", "half"]
    clock.step(NOON)
    planner.run_pending()
    clock.advance(3)
    planner.run_pending()
    clock.step(NOON + timedelta(hours=2, seconds=6))
    planner.run_pending()

    assert len(due) == 1


def test_a_time_that_comes_again_too_soon_is_not_gone_on_with(clock):
    again = []

    def on_due(batch, _now):
        again.extend((each.due.occurrences[0].scheduled_at, each.is_again) for each in batch)
        return []

    planner = Planner(Timetable(clock), clock, on_due)
    planner.timetable.plan("a", IntervalTrigger(600), NOON)
    clock.advance(600)
    planner.run_pending()
    clock.step(NOON - timedelta(hours=1))
    planner.run_pending()
    clock.step(NOON + timedelta(seconds=595))  # nearly back
    planner.run_pending()
    clock.advance(5)
    planner.run_pending()

    assert [is_again for at, is_again in again if at == NOON + timedelta(seconds=600)] in ([False], [False, False])


def test_several_single_times_of_a_job_are_decided_together(clock):
    handed = []

    def on_due(batch, _now):
        handed.append([[one.scheduled_at for one in each.due.occurrences] for each in batch])
        return []

    planner = Planner(Timetable(clock), clock, on_due)
    for minutes in (3, 1, 2):
        planner.timetable.plan_once("a", Occurrence(NOON - minutes * MINUTE, NOON), Origin.AFTER, {})
    planner.run_pending()

    assert handed == [[[NOON - 3 * MINUTE, NOON - 2 * MINUTE, NOON - MINUTE]]]


def test_a_job_that_cannot_be_put_off_does_not_cost_the_others_theirs(clock):
    class Broken(IntervalTrigger):
        broken = True

        def next_after(self, instant):
            if Broken.broken and instant > NOON + 10 * MINUTE:
                raise RuntimeError("broken")
            return super().next_after(instant)

    planner, due = planner_for(clock)
    for name, trigger in (("a", IntervalTrigger(600)), ("bad", Broken(600)), ("z", IntervalTrigger(600))):
        planner.timetable.plan(name, trigger, NOON)
    clock.step(NOON + 15 * MINUTE)
    planner.run_pending()
    Broken.broken = False
    for _ in range(10):
        clock.advance(60)
        planner.run_pending()

    assert {job_id for batch in due for job_id, _ in batch} == {"a", "bad", "z"}
