"""Cron expressions against known dates; `test_cron_oracles.py` has other programs and a walk as oracles."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from schedulerd.core.errors import TriggerError
from schedulerd.triggers.factory import CronTrigger, trigger_from

ROME = "Europe/Rome"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text + "+00:00")


def times(expression: str, zone: str, after: str, count: int) -> list[str]:
    trigger, at, found = CronTrigger(expression, zone), utc(after), []
    for _ in range(count):
        at = trigger.next_after(at)
        found.append(at.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M%z"))
    return found


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("30 2 * * *", "2026-01-01T02:30", "2026-01-02T02:30"),
        ("*/15 * * * *", "2026-01-01T00:01", "2026-01-01T00:15"),
        ("0 9-17/4 * * mon-fri", "2026-01-02T18:00", "2026-01-05T09:00"),
        ("0 0 29 2 *", "2026-03-01T00:00", "2028-02-29T00:00"),
        ("0 0 1,15 * 5", "2026-01-01T00:00", "2026-01-02T00:00"),  # either day: the 2nd is a Friday
        ("0 0 */2 * 5", "2026-01-01T00:00", "2026-01-09T00:00"),  # a star: both must match
        ("0 0 * jan,dec 7", "2026-02-01T00:00", "2026-12-06T00:00"),  # 7 is Sunday
        ("@daily", "2026-01-01T00:00", "2026-01-02T00:00"),
        ("0 0 29 2 mon", "2096-03-01T00:00", "2097-02-04T00:00"),  # either: Mondays in February
        ("5/20 * * * *", "2026-01-01T00:05", "2026-01-01T00:25"),
    ],
)
def test_the_next_time_is_found(expression, after, expected):
    assert CronTrigger(expression).next_after(utc(after)) == utc(expected)


def test_a_fixed_time_in_the_gap_runs_once_right_after_it():
    assert times("30 2 * * *", ROME, "2026-03-28T12:00", 2) == ["03-29 03:00+0200", "03-30 02:30+0200"]


def test_several_fixed_times_in_the_gap_run_once():
    assert times("0,15,30 2 * * *", ROME, "2026-03-28T12:00", 2) == ["03-29 03:00+0200", "03-30 02:00+0200"]


def test_a_fixed_time_in_the_repeated_hour_runs_once():
    assert times("30 2 * * *", ROME, "2026-10-24T12:00", 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]


def test_a_wildcard_follows_elapsed_time_in_both_repeated_hours():
    found = times("30 * * * *", ROME, "2026-10-24T23:50", 3)

    assert found == ["10-25 02:30+0200", "10-25 02:30+0100", "10-25 03:30+0100"]


def test_a_wildcard_skips_the_gap():
    assert times("30 * * * *", ROME, "2026-03-29T00:00", 2) == ["03-29 01:30+0100", "03-29 03:30+0200"]


def test_from_inside_the_repeated_hour_a_fixed_time_of_it_is_not_due_again():
    assert times("1 0-2 * * *", "Pacific/Auckland", "2025-04-05T14:00", 1) == ["04-07 00:01+1200"]


def test_half_an_hour_of_daylight_saving_is_right_too():
    assert times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00", 2) == ["10-04 02:30+1100", "10-05 02:15+1100"]
    assert times("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00", 2) == ["04-05 01:45+1100", "04-06 01:45+1030"]


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("61 * * * *", "minute 61 is outside 0 to 59"),
        ("* * *", "expected five fields"),
        ("0 0 30 2 *", "can never be due"),
        ("0 0 31 4,6,9,11 *", "can never be due"),
        ("* * * foo *", "'foo' is not a valid month"),
        ("*/0 * * * *", "above 0"),
        ("5-1 * * * *", "runs backwards"),
        ("@never", "expected one of @yearly"),
        ("", "five fields"),
        ("٣ * * * *", "is not a valid minute"),
    ],
)
def test_an_invalid_cron_expression_is_rejected_with_the_reason(expression, why):
    with pytest.raises(TriggerError, match=why) as error:
        trigger_from({"cron": expression})

    assert error.value.field == "cron"


def test_an_unknown_zone_is_refused():
    with pytest.raises(TriggerError, match="Mars/Olympus"):
        trigger_from({"cron": "* * * * *"}, "Mars/Olympus")


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("30 0 0 * * *", "2026-01-01T00:00:00", "2026-01-01T00:00:30"),
        ("*/20 59 23 * * *", "2026-01-01T23:59:40", "2026-01-02T23:59:00"),
        ("0 0 L * *", "2026-02-01T00:00", "2026-02-28T00:00"),
        ("0 0 l 2 *", "2027-03-01T00:00", "2028-02-29T00:00"),
        ("0 0 LW * *", "2026-05-01T00:00", "2026-05-29T00:00"),  # the 31st is a Sunday
        ("0 0 * * 5L", "2026-05-01T00:00", "2026-05-29T00:00"),
        ("0 0 * * friL", "2026-05-01T00:00", "2026-05-29T00:00"),
        ("0 0 * * mon#2", "2026-05-01T00:00", "2026-05-11T00:00"),
        ("0 0 * * 7#1,mon#5", "2026-05-04T00:00", "2026-06-07T00:00"),
        ("0 0 * 2 mon#5", "2026-01-01T00:00", "2044-02-29T00:00"),
        ("0 0 L * 1#1", "2026-05-01T00:00", "2026-05-04T00:00"),  # both are restricted: either
    ],
)
def test_seconds_and_special_days_are_known(expression, after, expected):
    assert CronTrigger(expression).next_after(utc(after)) == utc(expected)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("0 0 L-3 * *", "L \\(the last day\\), LW"),
        ("0 0 * * mon#6", "mon#2 \\(the second Monday, up to #5\\)"),
        ("TZ=Europe/Rome 0 0 * * *", "set the zone with timezone: instead"),
        ("0 0 */31 * mon#2", "can never be due"),
        ("@reboot", "startup: true"),
        ("* * * * * * *", "found 7"),
    ],
)
def test_what_is_refused_says_what_there_is_instead(expression, why):
    with pytest.raises(TriggerError, match=why):
        CronTrigger(expression)
