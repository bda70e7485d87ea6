from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.core.errors import TriggerError
from schedulerd.triggers.factory import IntervalTrigger, trigger_from


def test_ten_minutes_are_due_at_each_full_ten_minutes():
    trigger = trigger_from({"every": "10m"})

    assert trigger.next_after(datetime(2026, 5, 1, 9, 4, 59, tzinfo=UTC)) == datetime(2026, 5, 1, 9, 10, tzinfo=UTC)
    assert trigger.next_after(datetime(2026, 5, 1, 9, 10, tzinfo=UTC)) == datetime(2026, 5, 1, 9, 20, tzinfo=UTC)


@given(st.integers(1, 10**6), st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_the_next_time_is_later_and_at_most_one_interval_away(seconds, instant):
    found = IntervalTrigger(float(seconds)).next_after(instant)

    assert timedelta() < found - instant <= timedelta(seconds=seconds)
    assert found.timestamp() % seconds == 0


@pytest.mark.parametrize("value", ["0.5s", 0, "soon", None, True, "-1m"])
def test_too_short_or_no_interval_is_refused(value):
    with pytest.raises(TriggerError) as error:
        trigger_from({"every": value})

    assert error.value.field == "every"


def test_two_triggers_in_one_job_are_refused():
    with pytest.raises(TriggerError, match="already has 'cron'"):
        trigger_from({"cron": "* * * * *", "every": "1m"})


def test_no_trigger_is_no_mistake():
    assert trigger_from({"command": ["/bin/true"]}) is None
