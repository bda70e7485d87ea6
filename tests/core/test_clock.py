"""Time for what cannot be undone."""

from datetime import timedelta

from schedulerd.core.clock import DOUBTED_SECONDS, SteadyTime
from tests.support.builders import NOON
from tests.support.manual_clock import ManualClock

DAY = timedelta(days=1)


def test_a_clock_far_ahead_is_believed_after_a_delay():
    clock = ManualClock(NOON)
    steady = SteadyTime(clock)
    clock.step(NOON + 400 * DAY)
    assert steady.now() == NOON
    clock.advance(DOUBTED_SECONDS - 1)
    assert steady.now() == NOON + timedelta(seconds=DOUBTED_SECONDS - 1)
    clock.advance(1)

    assert steady.now() == clock.now()


def test_a_clock_that_is_right_again_is_believed_at_once():
    clock = ManualClock(NOON)
    steady = SteadyTime(clock)
    clock.step(NOON + 400 * DAY)
    steady.now()
    clock.step(NOON + timedelta(minutes=1))

    assert steady.now() == NOON + timedelta(minutes=1)


def test_small_steps_time_that_passes_and_a_host_that_sleeps_are_no_reason_for_doubt():
    clock = ManualClock(NOON)
    steady = SteadyTime(clock)
    clock.step(NOON + timedelta(hours=2))
    assert steady.now() == clock.now()
    clock.sleep(30 * 86400)
    assert steady.now() == clock.now()
    clock.advance(30 * 86400)

    assert steady.now() == clock.now()


def test_what_was_known_before_the_start_counts():
    clock = ManualClock(NOON)

    assert SteadyTime(clock, NOON - 9 * DAY).now() == NOON - 9 * DAY
    assert SteadyTime(clock, NOON - DAY / 2).now() == NOON
    assert SteadyTime(clock, NOON + 9 * DAY).now() == NOON
