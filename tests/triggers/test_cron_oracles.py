"""Cron against two other programs, and against a slow walk over every minute that decides where they differ.

Each list is of all times in three days around a shift of daylight saving, in eighteen zones: half-hour shifts, shifts at
midnight, a skipped day, double summer time, an offset below zero in summer, zones without any.
"""

import calendar
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import pytest
from croniter.croniter import CroniterError, croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schedulerd.core.errors import TriggerError
from schedulerd.triggers.factory import CronTrigger
from schedulerd.triggers.timezones import period_at

CronSim = pytest.importorskip("cronsim", reason="Debian 12 has none").CronSim

YEARS = {
    "Europe/Rome": 2026, "America/New_York": 2026, "America/St_Johns": 2026, "Australia/Lord_Howe": 2026,
    "Pacific/Auckland": 2026, "Pacific/Chatham": 2026, "America/Santiago": 2026, "America/Havana": 2026,
    "Africa/Casablanca": 2026, "America/Sao_Paulo": 2018, "Pacific/Apia": 2011, "Europe/Berlin": 1945,
    "Europe/London": 1941, "Asia/Tehran": 2021, "Asia/Kolkata": 2026, "UTC": 2026, "Europe/Dublin": 2026,
    "Asia/Gaza": 2026,
}  # fmt: skip
WINDOW = timedelta(hours=72)

# What the others do differently, each decided by the rule that is named. In all these cases ours must be what the walk says.
CRONSIM_DIFFERS = {
    "Australia/Lord_Howe": "it steps by whole hours over a border, and loses times where the shift is half of one",
    "Pacific/Chatham": "the same, where the border is at a quarter to the hour",
    "America/Havana": "the same, where the shift is at midnight and the day is the last or the n-th one",
    "America/Sao_Paulo": "the same",
    "Asia/Gaza": "the same",
    "Asia/Tehran": "the same",
    "America/Santiago": "the same",
    "Pacific/Apia": "it makes up for wildcards that a skipped day swallowed; Debian's cron(8) does so for fixed times only",
}
CRONITER_DIFFERS = (
    "it runs a fixed time in both passes of a repeated hour; Debian's cron(8) in the first only",
    "it takes */2 in a day field for a restriction, so that either day matches; crontab(5): one that begins with * is none",
    "it goes round in circles, or leaves out times, where hours with a step meet a gap or a repeat",
    "it knows no LW",
)


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


NIGHT = st.one_of(field(0, 23), field(0, 3), st.integers(0, 3).map(str))
DATES = st.one_of(st.just("*"), field(1, 28), st.sampled_from(["L", "LW", "1,L"]))
WEEKDAYS = st.one_of(st.just("*"), field(0, 6), st.sampled_from(["5L", "0L", "mon#2", "sun#1", "sat#4,sun#4"]))
CASES = st.tuples(st.sampled_from(list(YEARS)), st.integers(0, 10), st.integers(5 * 60, 40 * 60))


@lru_cache
def borders(zone: str) -> list[int]:
    """Return the Unix times at which the offset changes in the zone's year, or one in summer when there are none."""
    second, end = (int(datetime(YEARS[zone] + later, 1, 1, tzinfo=UTC).timestamp()) for later in (0, 1))
    found = []
    while second < end:
        stretch = period_at(zone, second)
        found += [stretch.start] if stretch.before != stretch.offset else []
        second = stretch.end
    return found or [end - 180 * 86400]


def begin_of(case: tuple[str, int, int]) -> datetime:
    zone, number, minutes = case
    near = borders(zone)
    return datetime.fromtimestamp(near[number % len(near)], UTC) - timedelta(minutes=minutes)


def our_times(expression: str, zone: str, start: datetime) -> list[datetime]:
    try:
        trigger = CronTrigger(expression, zone)
    except TriggerError as error:
        assume("never be due" not in error.why)
        raise
    found, at = [], start
    while (at := trigger.next_after(at)) is not None and at < start + WINDOW:
        found.append(at)
    assert trigger.count(start, start + WINDOW - timedelta(microseconds=1)) == len(found)
    return found


def cronsim_times(expression: str, zone: str, start: datetime) -> list[datetime]:
    found: list[datetime] = []
    for at in (each.astimezone(UTC) for each in CronSim(expression, start.astimezone(ZoneInfo(zone)))):
        if at >= start + WINDOW or (found and at <= found[-1]):  # it can go round in circles, for ever
            break
        found.append(at)
    return found


def croniter_times(expression: str, zone: str, start: datetime) -> list[datetime]:
    found: list[datetime] = []
    spelled = expression.replace("5L", "L5").replace("0L", "L0")
    try:
        source = croniter(spelled, start.astimezone(ZoneInfo(zone)))
        for at in iter(lambda: source.get_next(datetime).astimezone(UTC), None):
            if at >= start + WINDOW or (found and at <= found[-1]):  # it can go round in circles, for ever
                break
            found.append(at)
    except CroniterError:  # no time within its horizon
        pass
    return found


def is_fixed(expression: str) -> bool:
    return not any(text.startswith("*") for text in expression.split()[:2])


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(CASES, field(0, 59), NIGHT, DATES, WEEKDAYS)
def test_it_agrees_with_cronsim(case, minute, hour, dates, weekdays):
    zone, start, expression = case[0], begin_of(case), f"{minute} {hour} {dates} * {weekdays}"
    assume(start.astimezone(ZoneInfo(zone)).fold == 0)  # from inside a repeated hour cronsim begins before the start
    assume("/" not in weekdays.split("-")[0] or weekdays.startswith("*"))
    ours = our_times(expression, zone, start)

    if ours != cronsim_times(expression, zone, start):
        assert zone in CRONSIM_DIFFERS
        assert ours == walked(expression, zone, start)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(CASES, field(0, 59), NIGHT, st.sampled_from(["*", "L", "7-20", "1,15"]), WEEKDAYS)
def test_it_agrees_with_croniter(case, minute, hour, dates, weekdays):
    zone, start = case[0], begin_of(case)
    if dates != "*" or weekdays.startswith("*/"):
        weekdays = "*"  # the second rule of CRONITER_DIFFERS
    expression = f"{minute} {hour} {dates} * {weekdays}"
    ours, theirs = our_times(expression, zone, start), croniter_times(expression, zone, start)
    if is_fixed(expression):  # the first rule
        theirs = [at for at in theirs if at.astimezone(ZoneInfo(zone)).fold == 0]

    if ours != theirs:  # only a border can be the reason: before it, and from well after it on, both must agree
        near = [datetime.fromtimestamp(border, UTC) for border in borders(zone)]
        border = next(each for each in near if start < each < start + WINDOW)
        assert [at for at in ours if at < border] == [at for at in theirs if at < border]
        after = border + timedelta(hours=26)
        assert our_times(expression, zone, after) == croniter_times(expression, zone, after)
        assert ours == walked(expression, zone, start)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(CASES, field(0, 59), NIGHT, DATES, WEEKDAYS)
def test_it_agrees_with_a_walk_over_every_minute(case, minute, hour, dates, weekdays):
    zone, start, expression = case[0], begin_of(case), f"{minute} {hour} {dates} * {weekdays}"

    assert our_times(expression, zone, start) == walked(expression, zone, start)


@pytest.mark.parametrize("zone", YEARS)
@pytest.mark.parametrize("expression", ["30 2 * * *", "*/7 * * * *", "0 0 * * *", "15,45 0-3 * * *", "0 * L * *"])
def test_plain_expressions_agree_with_the_walk_at_every_border(zone, expression):
    for border in borders(zone):
        start = datetime.fromtimestamp(border, UTC) - timedelta(hours=30)
        assert our_times(expression, zone, start) == walked(expression, zone, start)


# The walk: of every minute it asks whether its local time matches. Slow, and plain to see.


def walked(expression: str, zone: str, start: datetime) -> list[datetime]:
    tz, fixed = ZoneInfo(zone), is_fixed(expression)
    due_at = lru_cache(None)(lambda local: matches(expression, local))
    seen: set[datetime] = set()
    found = []
    before = (start - timedelta(minutes=1441)).astimezone(tz).replace(tzinfo=None)
    for step in range(-1440, int(WINDOW.total_seconds() // 60)):  # from earlier on, so that a repeated hour is known as one
        at = start + timedelta(minutes=step)
        local = at.astimezone(tz).replace(tzinfo=None)
        skipped = [before + timedelta(minutes=each) for each in range(1, int((local - before).total_seconds() // 60))]
        due = due_at(local) and not (fixed and local in seen)
        if fixed:
            due = due or any(map(due_at, skipped))
        seen.add(local)
        before = local
        if due and at > start:
            found.append(at)
    return found


def matches(expression: str, local: datetime) -> bool:
    minutes, hours, dates, _, weekdays = expression.split()
    if local.minute not in numbers(minutes, 0, 59) or local.hour not in numbers(hours, 0, 23):
        return False
    day = any(date_matches(part, local) for part in dates.split(","))
    weekday = any(weekday_matches(part, local) for part in weekdays.split(","))
    either = not dates.startswith("*") and not weekdays.startswith("*")
    return day or weekday if either else day and weekday


def date_matches(part: str, local: datetime) -> bool:
    last = calendar.monthrange(local.year, local.month)[1]
    if part == "L":
        return local.day == last
    if part == "LW":
        return local.day == max(day for day in range(1, last + 1) if local.replace(day=day).weekday() < 5)
    return local.day in numbers(part, 1, 31)


def weekday_matches(part: str, local: datetime) -> bool:
    names = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
    weekday = local.isoweekday() % 7
    if "#" in part:
        name, _, number = part.partition("#")
        return names[weekday] == name and (local.day - 1) // 7 + 1 == int(number)
    if part.endswith("L"):
        return weekday == int(part[0]) and local.day + 7 > calendar.monthrange(local.year, local.month)[1]
    return weekday in numbers(part, 0, 6)


def numbers(text: str, low: int, high: int) -> set[int]:
    found = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        begin, end = (low, high) if span == "*" else (int(first), int(last or first))
        found |= set(range(begin, end + 1, int(step or 1)))
    return found
