"""Cron against known dates, against cronsim, and against a walk over every minute."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schedulerd.errors import TriggerError
from schedulerd.triggers import CronTrigger, trigger_from

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
        ("* * *", "five fields are needed"),
        ("0 0 30 2 *", "can never be due"),
        ("0 0 31 4,6,9,11 *", "can never be due"),
        ("* * * foo *", "'foo' is no month"),
        ("*/0 * * * *", "above 0"),
        ("5-1 * * * *", "runs backwards"),
        ("@never", "the words with @"),
        ("", "five fields"),
        ("٣ * * * *", "is no minute"),
    ],
)
def test_what_is_no_cron_expression_is_refused_with_the_reason(expression, why):
    with pytest.raises(TriggerError, match=why) as error:
        trigger_from({"cron": expression})

    assert error.value.field == "cron"


def test_an_unknown_zone_is_refused():
    with pytest.raises(TriggerError, match="Mars/Olympus"):
        trigger_from({"cron": "* * * * *"}, "Mars/Olympus")


# Against cronsim. Left out, because it decides otherwise: a step on a range of one value ("5-5/2": cronsim goes on to the
# end of the field, Debian's cron does not), shifts of half an hour (Lord_Howe: cronsim loses times there), and a start in
# a repeated hour (cronsim then begins with a time of the hour's first pass, which lies before the start).


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: f"{pair[0]}-{pair[1]}")
    return st.one_of(
        st.just("*"),
        st.integers(2, 20).map(lambda step: f"*/{step}"),
        st.lists(number, min_size=1, max_size=3).map(lambda values: ",".join(map(str, values))),
        span,
        st.tuples(span, st.integers(1, 5)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    )


EXPRESSIONS = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(" ".join)
SHIFTS = [  # around both kinds of shift, in several zones
    datetime(2025, 3, 29, 20, tzinfo=UTC), datetime(2025, 10, 25, 20, tzinfo=UTC), datetime(2025, 3, 9, 4, tzinfo=UTC),
    datetime(2025, 11, 2, 3, tzinfo=UTC), datetime(2025, 4, 5, 10, tzinfo=UTC), datetime(2025, 9, 27, 10, tzinfo=UTC),
]  # fmt: skip
ZONES = [ROME, "America/New_York", "America/St_Johns", "Asia/Kolkata", "Pacific/Auckland", "Africa/Casablanca", "UTC"]
INSTANTS = st.tuples(st.sampled_from(SHIFTS), st.integers(0, 600)).map(lambda pair: pair[0] + timedelta(minutes=pair[1]))


@settings(max_examples=1500, deadline=None)
@given(EXPRESSIONS, st.sampled_from(ZONES), INSTANTS)
def test_it_agrees_with_cronsim_around_daylight_saving(expression, zone, start):
    assume(start.astimezone(ZoneInfo(zone)).fold == 0)
    ours, theirs, at = CronTrigger(expression, zone), CronSim(expression, start.astimezone(ZoneInfo(zone))), start
    for _ in range(12):
        at = ours.next_after(at)
        assert at == next(theirs).astimezone(UTC)


def walked(expression: str, zone: str, start: datetime, minutes: int) -> list[datetime]:
    """Return the due times by asking of every minute whether its local time matches: slow, and plain to see."""
    texts = expression.split()
    bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
    allowed = [_values(text, *bound) for text, bound in zip(texts, bounds, strict=True)]
    fixed = not texts[0].startswith("*") and not texts[1].startswith("*")
    seen: set[datetime] = set()
    found = []
    for step in range(-2 * 1440, minutes):  # from earlier on, so that a repeated hour is known as one
        at = start + timedelta(minutes=step)
        local = at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        before = (at - timedelta(minutes=1)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        skipped = [before + timedelta(minutes=each) for each in range(1, int((local - before).total_seconds() // 60))]
        due = _matches(local, allowed, texts) and not (fixed and local in seen)
        if fixed:
            due = due or any(_matches(each, allowed, texts) for each in skipped)
        seen.add(local)
        if due and at > start:
            found.append(at)
    return found


def _values(text: str, low: int, high: int) -> set[int]:
    found = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        begin, end = (low, high) if span == "*" else (int(first), int(last or first))
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


def _matches(local: datetime, allowed: list[set[int]], texts: list[str]) -> bool:
    minutes, hours, days, months, weekdays = allowed
    day, weekday = local.day in days, local.isoweekday() % 7 in weekdays
    either = not texts[2].startswith("*") and not texts[4].startswith("*")
    return (
        local.minute in minutes
        and local.hour in hours
        and local.month in months
        and ((day or weekday) if either else day and weekday)
    )


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, st.sampled_from([*ZONES, "Australia/Lord_Howe"]), INSTANTS)
def test_it_agrees_with_a_walk_over_every_minute(expression, zone, start):
    trigger, at, found = CronTrigger(expression, zone), start, []
    end = start + timedelta(minutes=1440)
    while (at := trigger.next_after(at)) is not None and at < end:
        found.append(at)

    assert found == walked(expression, zone, start, 1440)
