"""The last health check: which is the newest, and how old it is."""

from datetime import timedelta

from schedulerd.actions.last_checks import Check, LastChecks
from tests.support.builders import NOON

AHEAD = timedelta(days=400)
WRONG = Check("a", (1, "f"), NOON + AHEAD, {}, 100.0)
RIGHT = Check("a", (2, "0"), NOON, {}, 105.0)


def test_the_newest_check_is_the_one_that_was_recorded_last_of_one_job_and_of_several():
    checks = LastChecks()
    for check in (WRONG, RIGHT, WRONG):
        checks.remember(check)
    assert checks.of("a") == RIGHT
    other = Check("b", (3, "0"), NOON - AHEAD, {}, 107.0)
    checks.remember(other)

    assert checks.newest(["a", "b"]) == other


def test_the_age_of_a_check_does_not_change_with_the_clock():
    assert WRONG.age_seconds(NOON, 130.0) == 30.0
    assert Check("a", (1, "f"), NOON, {}).age_seconds(NOON + timedelta(seconds=7), 130.0) == 7.0  # of an earlier daemon
