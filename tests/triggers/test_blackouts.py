"""Blackouts against known nights, and against a walk over every minute of two weeks."""

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulerd.core.errors import TriggerError
from schedulerd.triggers.blackouts import blackout_from, span_from
from schedulerd.triggers.spans import Calendar, Span

ROME = "Europe/Rome"
LORD_HOWE = "Australia/Lord_Howe"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text + "+00:00")


def local(text: str) -> datetime:
    return datetime.fromisoformat(text)


def blackout(*items: object, zone: str = "UTC", calendars: tuple[Calendar, ...] = (), defers: bool = False):
    return blackout_from(list(items), zone, {each.name: each for each in calendars}, defers=defers)


def calendar(*spans: Span) -> Calendar:
    return Calendar("holidays", spans)


CHRISTMAS = Span(local("2026-12-25"), local("2026-12-26"), "Christmas")
HOLIDAYS = {"calendar": "holidays"}


@pytest.mark.parametrize(
    ("text", "covered", "free"),
    [  # 2026-06-01 is a Monday
        ("sat..sun", "2026-06-06T00:00", "2026-06-08T00:00"),
        ("sat..sun", "2026-06-07T23:59:59", "2026-06-08T00:00"),
        ("sat", "2026-06-06T12:00", "2026-06-07T00:00"),
        ("Saturday .. SUNDAY", "2026-06-06T00:00", "2026-06-08T00:00"),
        ("fri..mon", "2026-06-08T12:00", "2026-06-09T00:00"),  # over the end of the week
        ("fri 18:00..mon 06:00", "2026-06-05T18:00", "2026-06-08T06:00"),
        ("fri 18:00..mon 06:00", "2026-06-08T05:59", "2026-06-08T06:00"),
        ("fri 18:00..sun 24:00", "2026-06-07T12:00", "2026-06-08T00:00"),
        ("mon..fri 09:00..17:30", "2026-06-03T09:00", "2026-06-03T17:30"),
        ("22:00..06:00", "2026-06-07T23:00", "2026-06-08T06:00"),
        ("22:00..06:00", "2026-06-08T05:00", "2026-06-08T06:00"),
        ("sun 22:00..06:00", "2026-06-08T05:00", "2026-06-08T06:00"),
        ("22:00..24:00", "2026-06-08T23:59:59", "2026-06-09T00:00"),
        ("22:00..00:00", "2026-06-08T23:59:59", "2026-06-09T00:00"),
        ("mon, wed 12:00..13:00", "2026-06-03T12:30", "2026-06-03T13:00"),
        ("mon..tue,thu 9:00:30..10:00:15", "2026-06-04T09:00:30", "2026-06-04T10:00:15"),
        ("sat,sun", "2026-06-06T00:00", "2026-06-08T00:00"),  # days that adjoin
        ("2026-12-24", "2026-12-24T23:59", "2026-12-25T00:00"),
        ("2026-12-24..2026-12-26", "2026-12-24T00:00", "2026-12-27T00:00"),
        ("2026-12-24T18:00..2026-12-27T06:00", "2026-12-24T18:00", "2026-12-27T06:00"),
        ("2026-12-24 18:00 .. 2026-12-27 06:00", "2026-12-27T05:59", "2026-12-27T06:00"),
        ("2026-12-24T18:00..2026-12-26", "2026-12-26T12:00", "2026-12-27T00:00"),
        ("2026-12-24..2026-12-26T24:00", "2026-12-26T12:00", "2026-12-27T00:00"),
    ],
)
def test_a_window_covers_its_time_and_ends(text, covered, free):
    window = blackout(text)

    assert window.covering(utc(covered)) == text
    assert window.free_at(utc(covered)) == utc(free)
    assert window.covering(utc(free)) is None


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("sat..sun", "2026-06-05T23:59:59"),
        ("fri 18:00..mon 06:00", "2026-06-05T17:59:59"),
        ("mon..fri 09:00..17:30", "2026-06-06T12:00"),
        ("mon,wed 12:00..13:00", "2026-06-02T12:30"),
        ("sun 22:00..06:00", "2026-06-07T05:00"),
        ("22:00..06:00", "2026-06-07T21:59:59.999999"),
        ("2026-12-24..2026-12-26", "2026-12-23T23:59:59"),
    ],
)
def test_what_no_window_covers_is_free_at_once(text, free):
    window = blackout(text)

    assert window.covering(utc(free)) is None
    assert window.free_at(utc(free)) == utc(free)


def test_nothing_makes_no_blackout():
    assert blackout_from(None, "UTC", {}) is None
    assert blackout_from([], "UTC", {}) is None


def test_one_window_needs_no_list():
    assert blackout_from("sat..sun", ROME, {}) == blackout("sat..sun", zone=ROME)
    assert blackout_from(HOLIDAYS, ROME, {"holidays": calendar(CHRISTMAS)}) is not None


def test_windows_are_in_the_time_of_the_zone():
    window = blackout("22:00..06:00", zone="Asia/Tokyo")

    assert window.free_at(utc("2026-06-01T13:00")) == utc("2026-06-01T21:00")
    assert window.free_at(utc("2026-06-01T12:59")) == utc("2026-06-01T12:59")


def test_an_instant_in_another_zone_is_formatted_in_utc():
    at = datetime(2026, 6, 1, 23, tzinfo=ZoneInfo("Asia/Tokyo"))

    assert blackout("sat..sun").free_at(at).tzinfo is UTC


def test_overlapping_and_adjoining_windows_are_followed_to_their_end():
    windows = blackout("fri 18:00..20:00", "fri 19:00..24:00", "sat..sun", "2026-06-08", "mon 23:00..tue 02:00")

    assert windows.free_at(utc("2026-06-05T18:30")) == utc("2026-06-09T02:00")
    assert windows.covering(utc("2026-06-05T19:30")) == "fri 18:00..20:00"  # the first that was written


def test_what_is_always_covered_is_never_free():
    weekends = [
        Span(local("2026-06-06") + timedelta(weeks=each), local("2026-06-08") + timedelta(weeks=each))
        for each in range(4000)
    ]

    assert blackout("mon..fri", HOLIDAYS, calendars=(calendar(*weekends),)).free_at(utc("2026-06-01T00:00")) is None
    assert blackout("2000-01-01..2900-01-01", zone=ROME).free_at(utc("2026-06-01T00:00")) is None


# Daylight saving


@pytest.mark.parametrize(
    ("zone", "text", "first", "free"),
    [
        # Rome: 02:00 to 03:00 does not exist on 2026-03-29, and comes twice on 2026-10-25.
        (ROME, "22:00..02:30", "2026-03-28T21:00", "2026-03-29T01:00"),  # an end in the gap
        (ROME, "02:30..04:00", "2026-03-29T01:00", "2026-03-29T02:00"),  # a begin in the gap
        (ROME, "02:00..02:30", "2026-10-25T00:00", "2026-10-25T01:30"),  # both passes
        (ROME, "02:30..04:00", "2026-10-25T00:30", "2026-10-25T03:00"),
        (ROME, "01:00..02:00", "2026-10-24T23:00", "2026-10-25T00:00"),  # it does not reach into the repeated hour
        (ROME, "03:00..04:00", "2026-10-25T02:00", "2026-10-25T03:00"),
        (ROME, "22:00..06:00", "2026-10-24T20:00", "2026-10-25T05:00"),  # nine hours
        (ROME, "22:00..06:00", "2026-03-28T21:00", "2026-03-29T04:00"),  # seven
        (ROME, "2026-10-25", "2026-10-24T22:00", "2026-10-25T23:00"),
        (ROME, "2026-10-25T02:10..2026-10-25T02:20", "2026-10-25T00:10", "2026-10-25T01:20"),
        # Lord Howe: half an hour; 02:00 to 02:30 is missing on 2026-10-04, and 01:30 to 02:00 comes twice on 2026-04-05.
        (LORD_HOWE, "01:00..02:15", "2026-10-03T14:30", "2026-10-03T15:30"),
        (LORD_HOWE, "02:15..03:00", "2026-10-03T15:30", "2026-10-03T16:00"),
        (LORD_HOWE, "01:30..01:45", "2026-04-04T14:30", "2026-04-04T15:15"),
        (LORD_HOWE, "01:00..01:30", "2026-04-04T14:00", "2026-04-04T14:30"),
    ],
)
def test_a_night_of_daylight_saving_is_covered_whole(zone, text, first, free):
    window, instant = blackout(text, zone=zone), utc(first)

    assert window.covering(instant - timedelta(seconds=1)) is None
    while instant < utc(free):
        assert window.covering(instant) == text
        assert window.free_at(instant) == utc(free)
        instant += timedelta(minutes=5)
    assert window.covering(utc(free)) is None


def test_a_window_inside_the_gap_is_not_there_that_night():
    window = blackout("02:10..02:50", zone=ROME)

    assert window.free_at(utc("2026-03-29T01:00")) == utc("2026-03-29T01:00")
    assert window.covering(utc("2026-03-30T00:30")) == "02:10..02:50"


# Calendars


def test_a_calendar_covers_with_the_name_of_the_event():
    windows = blackout(HOLIDAYS, zone=ROME, calendars=(calendar(CHRISTMAS, Span(local("2026-12-31"), local("2027-01-01"))),))

    assert windows.covering(utc("2026-12-24T23:00")) == "calendar holidays: Christmas"
    assert windows.covering(utc("2026-12-31T12:00")) == "calendar holidays"
    assert windows.free_at(utc("2026-12-25T12:00")) == utc("2026-12-25T23:00")


def test_an_event_with_a_zone_is_the_same_instant_for_all():
    event = Span(utc("2026-06-01T10:00"), utc("2026-06-01T12:00"), "Fair")
    for zone in (ROME, "Asia/Tokyo"):
        windows = blackout(HOLIDAYS, zone=zone, calendars=(calendar(event),))
        assert windows.covering(utc("2026-06-01T11:59:59")) == "calendar holidays: Fair"
        assert windows.free_at(utc("2026-06-01T10:00")) == utc("2026-06-01T12:00")
        assert windows.free_at(utc("2026-06-01T09:59:59")) == utc("2026-06-01T09:59:59")


def test_events_inside_a_longer_one_do_not_end_it():
    spans = [Span(local(f"2026-06-{day:02}"), local(f"2026-06-{day + 1:02}"), f"day {day}") for day in range(2, 20)]
    windows = blackout(
        HOLIDAYS, calendars=(calendar(*reversed(spans), Span(local("2026-06-01"), local("2026-06-15"), "long")),)
    )

    assert windows.covering(utc("2026-06-10T00:00")) == "calendar holidays: long"
    assert windows.covering(utc("2026-06-15T00:00")) == "calendar holidays: day 15"
    assert windows.free_at(utc("2026-06-01T00:00")) == utc("2026-06-20T00:00")


def test_spans_are_sorted_and_calendars_equal_by_value():
    spans = (
        Span(utc("2026-06-01T00:00"), utc("2026-06-02T00:00")),
        CHRISTMAS,
        Span(local("2026-01-01"), local("2026-01-02")),
    )

    assert Calendar("a", spans) == Calendar("a", spans[::-1])
    assert hash(Calendar("a", spans)) == hash(Calendar("a", spans[::-1]))
    assert [span.first.month for span in Calendar("a", spans).spans] == [1, 6, 12]
    assert Calendar("a", spans) != Calendar("a", spans[1:])
    assert Calendar("a", spans) != Calendar("b", spans)


def test_an_empty_calendar_covers_nothing():
    windows = blackout(HOLIDAYS, calendars=(calendar(),))

    assert windows.covering(utc("2026-06-01T00:00")) is None


# Text and equality


def test_the_text_names_all_windows_and_what_they_do():
    windows = blackout("sat..sun", HOLIDAYS, calendars=(calendar(CHRISTMAS),))

    assert re.fullmatch(r"blackout skips sat\.\.sun; calendar holidays \([0-9a-f]{12}\) \(UTC\)", windows.text)
    assert blackout("sat..sun", "22:00..06:00", defers=True).text == "blackout defers sat..sun; 22:00..06:00 (UTC)"


def test_an_edited_calendar_makes_another_text():
    before = blackout(HOLIDAYS, calendars=(calendar(CHRISTMAS),))
    after = blackout(HOLIDAYS, calendars=(calendar(Span(CHRISTMAS.first, CHRISTMAS.last, "Noel")),))

    assert before == blackout(HOLIDAYS, calendars=(calendar(CHRISTMAS),))
    assert hash(before) == hash(blackout(HOLIDAYS, calendars=(calendar(CHRISTMAS),)))
    assert before.text != after.text
    assert before != after


def test_blackouts_differ_by_zone_and_by_what_they_do():
    assert blackout("sat") != blackout("sat", zone=ROME)
    assert blackout("sat") != blackout("sat", defers=True)
    assert blackout("sat") == blackout(" sat ")


# What is refused


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sat..sum", "'sum' is not a weekday (did you mean 'sun'?): expected days (sat..sun), times"),
        ("mon-fri 09:00..17:00", "'mon-fri' is not a weekday: a range has two dots, such as mon..fri"),
        ("we", "'we' is not a weekday"),
        ("mon,,tue", "'' is not a weekday"),
        ("", "expected days (sat..sun)"),
        ("sat 10:00", "expected days (sat..sun)"),
        ("09:00-17:00", "expected days (sat..sun)"),
        ("25:00..26:00", "25:00 is not a time of day"),
        ("09:60..10:00", "09:60 is not a time of day"),
        ("09:00..24:01", "24:01 is not a time of day"),
        ("24:00..06:00", "24:00 is an end only"),
        ("22:00..22:00", "it begins and ends at the same time: for a whole day leave the times out"),
        ("fri 18:00..fri 18:00", "it begins and ends at the same time"),
        ("٢٢:00..06:00", "expected days"),
        ("2026-02-30", "2026-02-30 is not a date"),
        ("0026-12-24", "0026-12-24 is too far away: years are 1600 to 8999"),
        ("2026-12-26..2026-12-24", "it runs backwards: expected a date (2026-12-24), dates"),
        ("2026-12-24T18:00..2026-12-24T18:00", "it begins and ends at the same time"),
        ("2026-12-24T18:00", "its end is missing: expected a date"),
        ("2026-12-24 to 2026-12-26", "expected a date (2026-12-24), dates (2026-12-24..2026-12-26) or moments"),
    ],
)
def test_an_invalid_window_is_rejected_with_an_example(text, why):
    with pytest.raises(TriggerError) as error:
        blackout("2026-01-01", text)

    assert error.value.why.startswith(why)
    assert (error.value.field, error.value.text, error.value.loc) == ("blackout", text, ("blackout", 1))


@pytest.mark.parametrize(
    ("item", "text", "why"),
    [
        (
            {"calendar": "holidys"},
            "calendar: holidys",
            "there is no calendar 'holidys' (did you mean 'holidays'?): there are holidays",
        ),
        ({"calender": "holidays"}, "calender: holidays", "a mapping names a calendar, such as {calendar: holidays}"),
        ({"calendar": "holidays", "on": 1}, "calendar: holidays, on: 1", "a mapping names a calendar"),
        ({"calendar": None}, "calendar: None", "a mapping names a calendar"),
        (["sat"], "a list", "expected days"),
        (12, "12", "expected days"),
        (None, "nothing", "expected days"),
    ],
)
def test_an_item_of_another_kind_is_refused(item, text, why):
    with pytest.raises(TriggerError) as error:
        blackout(item, calendars=(calendar(CHRISTMAS),))

    assert error.value.text == text
    assert error.value.why.startswith(why)


def test_a_calendar_is_unknown_where_none_is_named():
    with pytest.raises(TriggerError, match="there is no calendar 'holidays': none is named under calendars"):
        blackout_from(HOLIDAYS, "UTC", {})


@pytest.mark.parametrize(
    "texts",
    [("mon..sun",), ("00:00..24:00",), ("mon..fri", "sat..sun"), ("06:00..23:00", "22:00..06:00"), ("mon 00:00..sun 24:00",),
     ("fri 18:00..mon 06:00", "mon 06:00..fri 18:00"), ("sun..sat", "2026-01-01")],
)  # fmt: skip
def test_windows_that_leave_no_time_in_the_week_are_refused(texts):
    with pytest.raises(TriggerError, match="the whole week is covered, so that no time is left"):
        blackout(*texts)


def test_a_second_that_is_left_is_enough():
    assert blackout("00:00..23:59:59").free_at(utc("2026-06-01T00:00")) == utc("2026-06-01T23:59:59")
    assert blackout("mon..sat", "sun 00:00:01..24:00").free_at(utc("2026-06-01T00:00")) == utc("2026-06-07T00:00")


def test_an_unknown_zone_is_refused():
    with pytest.raises(TriggerError, match="Mars/Olympus"):
        blackout("sat", zone="Mars/Olympus")


def test_a_span_has_a_name():
    assert span_from("2026-12-25", "Christmas") == CHRISTMAS


# Against a walk over every minute: a window goes from the first minute at which the clock has reached its begin until after
# the last at which it has not reached its end.

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NIGHTS = [  # of daylight saving, and quiet ones
    (ROME, "2026-03-29"), (ROME, "2026-10-25"), (LORD_HOWE, "2026-10-04"), (LORD_HOWE, "2026-04-05"),
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"), ("America/Havana", "2026-03-08"),
    ("America/Havana", "2026-11-01"), ("Africa/Casablanca", "2026-02-15"), ("Africa/Casablanca", "2026-03-22"),
    ("America/St_Johns", "2026-11-01"), ("Asia/Kolkata", "2026-12-31"), ("UTC", "2026-12-31"),
]  # fmt: skip
Bounds = list[tuple[datetime, datetime]]


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


NIGHTLY = st.one_of(st.integers(0, 200), st.sampled_from([0, 30, 60, 90, 120, 150, 180]))  # around the shifts
CLOCKS = st.one_of(NIGHTLY, NIGHTLY, st.integers(0, 1439))
DAY_NUMBERS = st.integers(0, 6)


@st.composite
def daily(draw, midnights: list[datetime]) -> tuple[str, Bounds]:
    """Draw `mon,wed 22:00..06:00`, or the same for each day, and its occurrences on the wall clock."""
    days = draw(st.one_of(st.just(set(range(7))), st.sets(DAY_NUMBERS, min_size=1, max_size=6)))
    begin, end = draw(st.tuples(CLOCKS, CLOCKS).filter(lambda pair: pair[0] != pair[1]))
    length = timedelta(minutes=end - begin if end > begin else end - begin + 1440)
    starts = [each + timedelta(minutes=begin) for each in midnights if each.weekday() in days]
    named = f"{','.join(DAYS[day] for day in days)} " if len(days) < 7 else ""
    return f"{named}{clock(begin)}..{clock(end)}", [(each, each + length) for each in starts]


@st.composite
def moments(draw, midnights: list[datetime]) -> tuple[str, Bounds]:
    """Draw `fri 18:00..mon 06:00`."""
    first, last = draw(st.tuples(DAY_NUMBERS, DAY_NUMBERS).filter(lambda pair: pair[0] != pair[1]))
    begin, end = draw(CLOCKS), draw(CLOCKS)
    length = timedelta(days=(last - first) % 7, minutes=end - begin)
    starts = [each + timedelta(minutes=begin) for each in midnights if each.weekday() == first]
    return f"{DAYS[first]} {clock(begin)}..{DAYS[last]} {clock(end)}", [(each, each + length) for each in starts]


@st.composite
def days(draw, midnights: list[datetime]) -> tuple[str, Bounds]:
    """Draw `sat..sun`."""
    first, length = draw(DAY_NUMBERS), draw(st.integers(1, 3))
    text = f"{DAYS[first]}..{DAYS[(first + length - 1) % 7]}"
    return text, [(each, each + timedelta(days=length)) for each in midnights if each.weekday() == first]


@st.composite
def dates(draw, midnights: list[datetime]) -> tuple[str, Bounds]:
    """Draw `2026-12-24T18:00..2026-12-27T06:00`."""
    first = draw(st.sampled_from(midnights)) + timedelta(minutes=draw(CLOCKS))
    last = first + timedelta(minutes=draw(st.integers(1, 4000)))
    return f"{first:%Y-%m-%dT%H:%M}..{last:%Y-%m-%dT%H:%M}", [(first, last)]


@st.composite
def cases(draw) -> tuple[str, datetime, list[tuple[str, Bounds]]]:
    zone, night = draw(st.sampled_from(NIGHTS))
    shift = local(night)
    midnights = [shift + timedelta(days=each) for each in range(-24, 25)]
    kinds = st.one_of(daily(midnights), moments(midnights), days(midnights), dates(midnights))
    return zone, shift.replace(tzinfo=UTC), draw(st.lists(kinds, min_size=1, max_size=3))


@cache
def around(zone: str, shift: datetime) -> tuple[list[datetime], list[datetime]]:
    """Return the minutes of the two weeks around `shift`, with ten days on either side, and their local times."""
    minutes = [shift + timedelta(minutes=each) for each in range(-17 * 1440, 17 * 1440)]
    return minutes, [each.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for each in minutes]


def walked(bounds: Bounds, walls: list[datetime]) -> list[bool]:
    """Return of each minute, whose local times are `walls`, whether it is covered: slow, and plain to see."""
    covered = [False] * len(walls)
    for begin, end in bounds:
        first = next((minute for minute, shown in enumerate(walls) if shown >= begin), len(walls))
        last = next((minute for minute in range(len(walls) - 1, -1, -1) if walls[minute] < end), -1)
        covered[first : last + 1] = [True] * (last + 1 - first)
    return covered


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(cases())
def test_it_agrees_with_a_walk_over_every_minute(case):
    zone, shift, drawn = case
    minutes, walls = around(zone, shift)
    covered = [any(each) for each in zip(*(walked(bounds, walls) for _, bounds in drawn), strict=True)]
    if all(covered):
        return
    windows = blackout(*(text for text, _ in drawn), zone=zone)
    free = None
    for index in range(len(minutes) - 1, 10 * 1440, -1):
        free = free if covered[index] else minutes[index]
        if index < 24 * 1440:
            assert (windows.covering(minutes[index]) is not None) == covered[index], minutes[index]
            if free is not None and index % 7 == 0:
                assert windows.free_at(minutes[index]) == free


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 500)), min_size=1, max_size=30), st.sampled_from(NIGHTS))
def test_overlapping_events_agree_with_a_linear_search(drawn, night):
    begin = utc("2026-06-01T00:00")
    spans = [
        Span(begin + timedelta(minutes=first), begin + timedelta(minutes=first + length), f"{first}+{length}")
        for first, length in drawn
    ]
    windows = blackout(HOLIDAYS, zone=night[0], calendars=(calendar(*spans),))
    for minute in range(0, 3600, 13):
        at = begin + timedelta(minutes=minute)
        names = {f"calendar holidays: {span.name}" for span in spans if span.first <= at < span.last}
        free = at
        while any(span.first <= free < span.last for span in spans):
            free = max(span.last for span in spans if span.first <= free < span.last)
        assert windows.covering(at) in (names or {None})
        assert windows.free_at(at) == free
