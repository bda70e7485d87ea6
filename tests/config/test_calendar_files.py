"""Calendar files: YAML and iCalendar as calendar programs write it, and what is said about broken ones."""

import os
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulerd.config.calendar_files import CalendarFileError, read_calendar
from schedulerd.config.files import Files
from schedulerd.triggers.blackouts import blackout_from

ROME = ZoneInfo("Europe/Rome")

ZONE_OF_ITS_OWN = """BEGIN:VTIMEZONE
TZID:Mine
BEGIN:STANDARD
DTSTART:19701025T030000
RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
END:STANDARD
BEGIN:DAYLIGHT
DTSTART:19700329T020000
RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
END:DAYLIGHT
END:VTIMEZONE
"""


@pytest.fixture
def spans(tmp_path):
    """Return a function that writes a file and tells the spans in it as texts."""

    def read(text: str, name: str = "holidays.ics") -> list[str]:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return [told(span) for span in read_calendar("holidays", str(path), Files()).spans]

    return read


@pytest.fixture
def refusal(tmp_path):
    """Return a function that writes a file and tells why it is refused, after its path."""

    def read(text: str | bytes, name: str = "holidays.ics") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(CalendarFileError) as error:
            read_calendar("holidays", str(path), Files())
        assert str(error.value).startswith(f"{path}:")
        return str(error.value).replace(f"{path}:", "")

    return read


def told(span) -> str:
    assert (span.first.tzinfo is None) == (span.last.tzinfo is None)
    assert span.first.tzinfo in (None, UTC)
    zone = "Z" if span.first.tzinfo else ""
    return " ".join(filter(None, (f"{span.first:%Y-%m-%d %H:%M}{zone}", f"{span.last:%Y-%m-%d %H:%M}{zone}", span.name)))


def ics(*events: str, before: str = "", after: str = "") -> str:
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//test//EN", *before.splitlines()]
    for event in events:
        lines += ["BEGIN:VEVENT", *event.splitlines(), "END:VEVENT"]
    return "\r\n".join([*lines, *after.splitlines(), "END:VCALENDAR", ""])


# YAML


def test_yaml_has_dates_with_and_without_names(spans):
    text = """
- 2026-12-31
- 2026-12-25: Christmas
- 2026-12-24..2026-12-26
- 2026-12-24T18:00..2026-12-27T06:00: Works
- "2027-01-06":
"""
    assert spans(text, "holidays.yaml") == [
        "2026-12-24 00:00 2026-12-27 00:00",
        "2026-12-24 18:00 2026-12-27 06:00 Works",
        "2026-12-25 00:00 2026-12-26 00:00 Christmas",
        "2026-12-31 00:00 2027-01-01 00:00",
        "2027-01-06 00:00 2027-01-07 00:00",
    ]


def test_yaml_may_be_one_mapping_of_dates_to_names(spans):
    found = spans("2026-12-25: Christmas\n2026-12-26: St. Stephen's\n", "holidays.yaml")

    assert found == ["2026-12-25 00:00 2026-12-26 00:00 Christmas", "2026-12-26 00:00 2026-12-27 00:00 St. Stephen's"]


def test_an_empty_list_is_a_calendar(spans):
    assert spans("[]", "holidays.yaml") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- 2026-12-25\n- 2026-02-30\n", "2:3: [1]: '2026-02-30': 2026-02-30 is not a date: the day is not in the month"),
        ("- {2026-12-26..2026-12-24: x}", "1:4: [0].2026-12-26..2026-12-24: '2026-12-26..2026-12-24': it runs backwards"),
        ("- Christmas\n", "1:3: [0]: 'Christmas': expected a date (2026-12-24), dates (2026-12-24..2026-12-26)"),
        ("- 2026\n", "1:3: [0]: 2026: expected a list of dates, each such as 2026-12-25 or 2026-12-25: Christmas"),
        ("- 2026-12-25: [a]\n", "1:3: [0].2026-12-25: '2026-12-25': the name of a date is a text, not a list"),
        ("", "1:1: expected a list of dates, each such as 2026-12-25 or 2026-12-25: Christmas, not nothing"),
        ("Christmas", "1:1: expected a list of dates"),
        ("2026-12-25: a\n2026-12-25: b\n", "2:1: 2026-12-25: duplicate key '2026-12-25'"),
        ("- a\n- [\n", "3:1: not YAML"),
        ("- !!python/name:os.system 2026-12-25\n", "1:3: [0]: the tag"),
    ],
)
def test_a_mistake_in_yaml_is_told_with_its_place(refusal, text, why):
    assert refusal(text, "holidays.yaml").startswith(why)


def test_several_mistakes_are_told_at_once(refusal):
    why = refusal("- a\n- b\n- c\n- d\n- e\n", "holidays.yaml")

    assert why.count("expected a date") == 3
    assert why.endswith("; and 2 more")


# iCalendar


def test_days_that_recur_each_year_are_in_the_time_of_the_job(spans):
    found = spans(ics("UID:1\nSUMMARY:Christmas\nDTSTART;VALUE=DATE:20201225\nDTEND;VALUE=DATE:20201227\nRRULE:FREQ=YEARLY"))

    assert found[0] == "2020-12-25 00:00 2020-12-27 00:00 Christmas"
    assert found[-1] == "2100-12-25 00:00 2100-12-27 00:00 Christmas"
    assert len(found) == 81


def test_the_first_thursday_is_found(spans):
    found = spans(ics("UID:1\nDTSTART;VALUE=DATE:20261126\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;COUNT=3;WKST=SU"))

    assert found == [
        "2026-11-26 00:00 2026-11-27 00:00",
        "2027-11-25 00:00 2027-11-26 00:00",
        "2028-11-23 00:00 2028-11-24 00:00",
    ]


def test_an_event_stays_at_its_time_of_day_over_daylight_saving(spans):
    event = (
        "UID:1\nDTSTART;TZID=Europe/Rome:20261023T090000\nDTEND;TZID=Europe/Rome:20261023T103000\nRRULE:FREQ=DAILY;COUNT=4"
    )

    assert spans(ics(event)) == [
        "2026-10-23 07:00Z 2026-10-23 08:30Z",
        "2026-10-24 07:00Z 2026-10-24 08:30Z",
        "2026-10-25 08:00Z 2026-10-25 09:30Z",
        "2026-10-26 08:00Z 2026-10-26 09:30Z",
    ]


def test_an_event_over_a_night_of_daylight_saving_ends_at_its_time_of_day(spans):
    event = (
        "UID:1\nDTSTART;TZID=Europe/Rome:20261023T220000\nDTEND;TZID=Europe/Rome:20261024T060000\nRRULE:FREQ=DAILY;COUNT=2"
    )

    assert spans(ics(event)) == ["2026-10-23 20:00Z 2026-10-24 04:00Z", "2026-10-24 20:00Z 2026-10-25 05:00Z"]


@pytest.mark.parametrize(
    ("duration", "last"),
    [
        ("PT8H", "2026-10-25 04:00Z"),
        ("P1D", "2026-10-25 21:00Z"),
        ("P1DT30M", "2026-10-25 21:30Z"),
        ("P1W", "2026-10-31 21:00Z"),
    ],
)
def test_a_duration_counts_days_on_the_wall_clock_and_hours_as_they_pass(spans, duration, last):
    found = spans(ics(f"UID:1\nDTSTART;TZID=Europe/Rome:20261024T220000\nDURATION:{duration}"))

    assert found == [f"2026-10-24 20:00Z {last}"]


def test_utc_is_utc_and_a_time_without_zone_is_in_the_time_of_the_job(spans):
    found = spans(
        ics("UID:1\nDTSTART:20260601T100000Z\nDTEND:20260601T120000Z", "UID:2\nDTSTART:20260601T100000\nDURATION:PT1H")
    )

    assert found == ["2026-06-01 10:00 2026-06-01 11:00", "2026-06-01 10:00Z 2026-06-01 12:00Z"]


def test_days_have_a_length_without_an_end_and_times_have_none(spans):
    found = spans(
        ics(
            "UID:1\nDTSTART;VALUE=DATE:20260601",
            "UID:2\nDTSTART;VALUE=DATE:20260602\nDTEND;VALUE=DATE:20260602",
            "UID:3\nDTSTART;VALUE=DATE:20260603\nDURATION:P2D",
            "UID:4\nDTSTART:20260601T100000Z",
        )
    )

    assert found == [
        "2026-06-01 00:00 2026-06-02 00:00",
        "2026-06-02 00:00 2026-06-03 00:00",
        "2026-06-03 00:00 2026-06-05 00:00",
    ]


def test_a_zone_that_the_file_defines_is_used(spans):
    event = "UID:1\nDTSTART;TZID=Mine:20261024T090000\nDTEND;TZID=Mine:20261024T100000\nRRULE:FREQ=DAILY;COUNT=2"

    assert spans(ics(event, before=ZONE_OF_ITS_OWN)) == [
        "2026-10-24 07:00Z 2026-10-24 08:00Z",
        "2026-10-25 08:00Z 2026-10-25 09:00Z",
    ]


def test_the_zones_of_outlook_are_known(spans):
    event = "UID:1\nDTSTART;TZID=W. Europe Standard Time:20260701T090000\nDURATION:PT1H"

    assert spans(ics(event)) == ["2026-07-01 07:00Z 2026-07-01 08:00Z"]


@pytest.mark.parametrize(
    "exdate",
    [
        "EXDATE;TZID=Europe/Rome:20260602T090000,20260604T090000",
        "EXDATE;TZID=Europe/Rome:20260602T090000\nEXDATE:20260604T070000Z",
        "EXDATE;TZID=America/New_York:20260602T030000,20260604T030000",
        "EXDATE;VALUE=DATE:20260602,20260604",
        "EXDATE:20260602T090000,20260604T090000",
        "EXRULE:FREQ=DAILY;INTERVAL=2;COUNT=2",
    ],
)
def test_exceptions_are_left_out(spans, exdate):
    start = "20260602" if "EXRULE" in exdate else "20260601"
    event = (
        f"UID:1\nDTSTART;TZID=Europe/Rome:{start}T090000\nDURATION:PT1H\nRRULE:FREQ=DAILY;UNTIL=20260605T070000Z\n{exdate}"
    )

    expected = [f"2026-06-{day:02} 07:00Z 2026-06-{day:02} 08:00Z" for day in (1, 3, 5) if f"202606{day:02}" >= start]
    assert spans(ics(event)) == expected


@pytest.mark.parametrize(
    ("until", "count"), [("20260604T070000Z", 4), ("20260604T065959Z", 3), ("20260604", 4), ("20260604T090000", 4)]
)
def test_until_is_included(spans, until, count):
    event = f"UID:1\nDTSTART;TZID=Europe/Rome:20260601T090000\nDURATION:PT1H\nRRULE:FREQ=DAILY;UNTIL={until}"

    assert len(spans(ics(event))) == count


def test_dates_that_are_added_are_there(spans):
    added = (
        "RDATE;TZID=Europe/Rome:20260603T100000\nRDATE;VALUE=PERIOD:20260605T090000Z/PT3H,20260606T090000Z/20260606T100000Z"
    )

    assert spans(ics(f"UID:1\nDTSTART;TZID=Europe/Rome:20260601T090000\nDURATION:PT1H\n{added}")) == [
        "2026-06-01 07:00Z 2026-06-01 08:00Z",
        "2026-06-03 08:00Z 2026-06-03 09:00Z",
        "2026-06-05 09:00Z 2026-06-05 12:00Z",
        "2026-06-06 09:00Z 2026-06-06 10:00Z",
    ]


def test_an_occurrence_is_replaced_or_cancelled(spans):
    found = spans(
        ics(
            "UID:1\nRECURRENCE-ID:20260602T070000Z\nDTSTART;TZID=Europe/Rome:20260602T150000\nDURATION:PT2H\nSUMMARY:Later",
            "UID:1\nDTSTART;TZID=Europe/Rome:20260601T090000\nDURATION:PT1H\nRRULE:FREQ=DAILY;COUNT=4",
            "UID:1\nRECURRENCE-ID;TZID=Europe/Rome:20260603T090000\nDTSTART;TZID=Europe/Rome:20260603T090000\nSTATUS:CANCELLED",
            "UID:2\nDTSTART;TZID=Europe/Rome:20260603T090000\nDURATION:PT5M",
        )
    )

    assert found == [
        "2026-06-01 07:00Z 2026-06-01 08:00Z",
        "2026-06-02 13:00Z 2026-06-02 15:00Z Later",
        "2026-06-03 07:00Z 2026-06-03 07:05Z",
        "2026-06-04 07:00Z 2026-06-04 08:00Z",
    ]


def test_a_day_of_a_year_is_replaced(spans):
    found = spans(
        ics(
            "UID:1\nDTSTART;VALUE=DATE:20260101\nRRULE:FREQ=YEARLY;COUNT=2",
            "UID:1\nRECURRENCE-ID;VALUE=DATE:20270101\nDTSTART;VALUE=DATE:20270102",
        )
    )

    assert found == ["2026-01-01 00:00 2026-01-02 00:00", "2027-01-02 00:00 2027-01-03 00:00"]


def test_cancelled_events_do_not_count_and_transparent_ones_do(spans):
    found = spans(
        ics("UID:1\nDTSTART;VALUE=DATE:20260101\nSTATUS:CANCELLED", "UID:2\nDTSTART;VALUE=DATE:20260102\nTRANSP:TRANSPARENT")
    )

    assert found == ["2026-01-02 00:00 2026-01-03 00:00"]


def test_a_name_is_one_line(spans):
    long = "x" * 200

    assert spans(ics("UID:1\nDTSTART;VALUE=DATE:20260101\nSUMMARY:New\\nyear\\, \x07 all\r\n  day")) == [
        "2026-01-01 00:00 2026-01-02 00:00 New year, all day"
    ]
    assert spans(ics(f"UID:1\nDTSTART;VALUE=DATE:20260101\nSUMMARY:{long}"))[0].endswith("00:00 " + "x" * 100)


def test_icalendar_is_known_by_its_content(spans):
    text = "\ufeff\n" + ics("UID:1\nDTSTART;VALUE=DATE:20260101").replace("\r\n", "\n")

    assert spans(text, "holidays") == ["2026-01-01 00:00 2026-01-02 00:00"]


def test_todos_and_alarms_are_no_events(spans):
    alarm = "BEGIN:VALARM\nACTION:DISPLAY\nTRIGGER:-PT15M\nDURATION:PT5M\nREPEAT:2\nEND:VALARM"
    todo = "BEGIN:VTODO\nUID:2\nDTSTART:20260601T100000Z\nDURATION:PT5H\nEND:VTODO"

    assert spans(ics(f"UID:1\nDTSTART;VALUE=DATE:20260101\n{alarm}", after=todo)) == ["2026-01-01 00:00 2026-01-02 00:00"]


def test_a_calendar_without_events_is_empty(spans):
    assert spans(ics()) == []


def test_a_job_is_not_started_in_an_event(tmp_path):
    path = tmp_path / "works.ics"
    path.write_text(ics("UID:1\nSUMMARY:Works\nDTSTART;TZID=Europe/Rome:20261024T220000\nDURATION:PT8H"))
    windows = blackout_from({"calendar": "works"}, "Asia/Tokyo", {"works": read_calendar("works", str(path), Files())})

    assert windows.covering(datetime(2026, 10, 25, 0, tzinfo=UTC)) == "calendar works: Works"
    assert windows.free_at(datetime(2026, 10, 25, 0, tzinfo=UTC)) == datetime(2026, 10, 25, 4, tzinfo=UTC)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(
        [
            "DAILY",
            "WEEKLY",
            "MONTHLY",
            "YEARLY",
            "WEEKLY;BYDAY=MO,SA",
            "MONTHLY;BYDAY=-1FR",
            "YEARLY;BYMONTHDAY=29;BYMONTH=2",
        ]
    ),
    st.integers(1, 5),
    st.integers(1, 30),
    st.datetimes(datetime(1960, 1, 1), datetime(2090, 1, 1)),
)
def test_a_rule_is_written_out_as_dateutil_does_it(tmp_path_factory, rule, interval, count, start):
    start = start.replace(microsecond=0, fold=0)
    text = f"FREQ={rule};INTERVAL={interval};COUNT={count}"
    path = tmp_path_factory.getbasetemp() / "rule.ics"
    path.write_text(ics(f"UID:1\nDTSTART:{start:%Y%m%dT%H%M%S}\nDURATION:PT1H\nRRULE:{text}"))
    expected = {start, *(each for each in rrulestr(text, dtstart=start) if each.year <= 2100)}

    spans = read_calendar("rule", str(path), Files()).spans

    assert [span.first for span in spans] == sorted(expected)
    assert {span.last - span.first for span in spans} == {timedelta(hours=1)}


# What is refused


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ("SUMMARY:x", "event 'x': it has no DTSTART"),
        ("DTSTART:2026xx", "event: DTSTART is invalid"),
        ("DTSTART", "event: line is invalid: Content line could not be parsed into parts: 'DTSTART'"),
        ("DTSTART:P1D", "event: DTSTART 1 day, 0:00:00 is invalid: expected such as 20261225 or 20261224T180000Z"),
        ("DTSTART;VALUE=DATE:00010101", "event: DTSTART 0001-01-01 is invalid"),
        (
            "DTSTART:20260101T100000Z\nDTEND:20260101T090000Z",
            "event: DTEND 2026-01-01 09:00:00+00:00 is not later than DTSTART",
        ),
        (
            "DTSTART;VALUE=DATE:20260102\nDTEND;VALUE=DATE:20260101",
            "event: DTEND 2026-01-01 is not later than DTSTART 2026-01-02",
        ),
        ("DTSTART;VALUE=DATE:20260102\nDTEND:20260103T100000Z", "event: DTEND 2026-01-03 10:00:00+00:00 has another type"),
        ("DTSTART;VALUE=DATE:20260102\nDTEND;VALUE=DATE:99991231", "event: DTEND 9999-12-31 is not later than"),
        (
            "DTSTART:20260102T100000Z\nDURATION:-PT1H",
            "event: DURATION -1 day, 23:00:00 is invalid: expected such as P1D",
        ),
        ("DTSTART:20260102T100000Z\nDURATION:P99999999D", "event: a time is too far away"),
        ("DTSTART:20260102T100000Z\nDTSTART:20260103T100000Z", "event: it has more than one DTSTART"),
        ("DTSTART;TZID=Mars/Olympus:20260102T100000", "event: TZID 'Mars/Olympus' is neither a known time zone nor defined"),
        ("DTSTART:20260102T100000Z\nDTEND;TZID=Mars/X:20260102T120000", "event: TZID 'Mars/X' is neither"),
        ("DTSTART;VALUE=DATE:20260102\nRRULE:FREQ=OFTEN", "event: RRULE is invalid"),
        ("DTSTART;VALUE=DATE:20260102\nRRULE:BYDAY=MO", "event: RRULE is invalid"),
        (
            "DTSTART;VALUE=DATE:20260102\nRRULE:FREQ=DAILY;INTERVAL=0",
            "event: RRULE is invalid: INTERVAL is at least 1",
        ),
        ("DTSTART;VALUE=DATE:20260102\nRRULE:FREQ=DAILY;COLOUR=RED", "event: RRULE is invalid"),
        ("DTSTART;VALUE=DATE:20260102\nRRULE:FREQ=MONTHLY;BYDAY=92MO", "event: RRULE is invalid"),
        (
            "DTSTART;VALUE=DATE:20260102\nRRULE;VALUE=DATE:20260102",
            "event: RRULE with VALUE=DATE is invalid: expected",
        ),
        ("DTSTART;VALUE=DATE:20260102\nEXDATE:soon", "event: EXDATE is invalid"),
        (
            "DTSTART;VALUE=DATE:20260102\nRDATE;VALUE=TIME:202607",
            "event: RDATE with VALUE=TIME is invalid: expected DATE-TIME or DATE or PERIOD",
        ),
        (
            "DTSTART;VALUE=DATE:20260102\nRDATE:202607",
            "event: 20:26:07 is invalid: expected a date, or a date and a time",
        ),
        (
            "DTSTART;VALUE=DATE:20260102\nRECURRENCE-ID;RANGE=THISANDFUTURE:20260102",
            "event: RECURRENCE-ID with RANGE is not supported",
        ),
        (
            "DTSTART;VALUE=DATE:20260102\nRRULE:FREQ=DAILY",
            "event: it has more than 20,000 periods until the end of 2100: end",
        ),
        ("DTSTART:20260102T100000Z\nDURATION:PT1S\nRRULE:FREQ=SECONDLY", "event: RRULE with FREQ=SECONDLY is not"),
    ],
)
def test_a_mistake_in_an_event_is_told_with_its_line(refusal, event, why):
    text = ics("UID:0\nDTSTART;VALUE=DATE:20260101", f"UID:1\n{event}")

    assert refusal(text).startswith(f"8:1: {why}")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<html>\n<body>Log in</body>", "1:1: '<html>' is not iCalendar: expected BEGIN:VCALENDAR"),
        ("", "1:1: '' is not iCalendar: expected BEGIN:VCALENDAR"),
        (ics("UID:1\nSUMMARY:a").replace("END:VCALENDAR\r\n", ""), "7:1: is cut off: expected END:VCALENDAR"),
        ("BEGIN:VCALENDAR\nrubbish\nEND:VCALENDAR\n", "1:1: is not iCalendar: "),
        ("BEGIN:VCALENDAR\nEND:VCALENDAR\nEND:VCALENDAR\n", "1:1: is not iCalendar: "),
    ],
)  # fmt: skip
def test_what_is_no_icalendar_is_refused(refusal, text, why):
    assert refusal(text).startswith(why)


def test_a_deep_nest_is_refused(refusal):
    assert refusal("BEGIN:VCALENDAR\n" * 3000 + "END:VCALENDAR\n" * 3000)


def test_all_events_together_have_a_bound(refusal):
    events = [f"UID:{each}\nDTSTART;VALUE=DATE:20260101\nRRULE:FREQ=DAILY;COUNT=8000" for each in range(3)]

    assert "event: with this event the file has more than 20,000" in refusal(ics(*events))


def test_a_long_list_is_refused(refusal):
    assert "the file has more than 20,000" in refusal("- 2026-12-25\n" * 20_001, "holidays.yaml")


@pytest.mark.parametrize("name", ["holidays.ics", "holidays.yaml"])
def test_a_large_file_is_refused(refusal, name):
    assert refusal(b" " * (4 * 1024 * 1024 + 1), name) == "1:1: is larger than 4 MiB"


@pytest.mark.parametrize("rule", ["DAILY;BYMONTH=2;BYMONTHDAY=30", "YEARLY;BYMONTH=2;BYMONTHDAY=30"])
def test_a_rule_that_never_comes_is_known_soon(spans, rule):
    assert len(spans(ics(f"UID:1\nDTSTART;VALUE=DATE:20260101\nRRULE:FREQ={rule}"))) == 1


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(CalendarFileError, match=r"nothing\.ics:1:1: cannot be read: No such file"):
        read_calendar("holidays", str(tmp_path / "nothing.ics"), Files())


@pytest.mark.parametrize("name", ["pipe.ics", "pipe.yaml"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CalendarFileError, match="is not a regular file"):
        read_calendar("holidays", str(tmp_path / name), Files())


def test_a_yaml_file_that_all_can_change_is_refused(tmp_path):
    path = tmp_path / "holidays.yaml"
    path.write_text("- 2026-12-25\n")
    path.chmod(0o666)
    with pytest.raises(CalendarFileError, match="can be changed by others"):
        read_calendar("holidays", str(path), Files())


@pytest.mark.parametrize("library", ["icalendar", "dateutil.rrule"])
def test_a_missing_library_is_named(refusal, spans, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)  # as it is where it is not installed

    assert "pip install 'schedulerd[calendars]'" in refusal(ics())
    assert spans("[]", "holidays.yaml") == []  # YAML needs none


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_in_words_or_read(tmp_path_factory, data):
    text = ics(
        "UID:1\nDTSTART;TZID=Mine:20260601T090000\nDURATION:P1DT1H\nRRULE:FREQ=MONTHLY;COUNT=4;BYDAY=2MO;UNTIL=20270101T000000Z",
        "UID:2\nDTSTART;VALUE=DATE:20260101\nDTEND;VALUE=DATE:20260102\nEXDATE;VALUE=DATE:20260101\nSTATUS:CONFIRMED",
        "UID:1\nRECURRENCE-ID;TZID=Mine:20260713T090000\nDTSTART:20260714T090000Z\nRDATE;VALUE=PERIOD:20260714T090000Z/PT1H",
        before=ZONE_OF_ITS_OWN,
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        put = data.draw(
            st.sampled_from(["", *':;=,"\n\x00é9ZP-', "UID", "\nBEGIN:VEVENT\n", "\nRDATE", "\nEXDATE", "\nRRULE"])
            | st.sampled_from([";VALUE=TIME", ";VALUE=PERIOD", ":202607", ";TZID=Mine"])
        )
        text = text[:at] + put + text[at + data.draw(st.integers(0, 12)) :]
    path = tmp_path_factory.getbasetemp() / "damaged.ics"
    path.write_bytes(text.encode())
    try:
        read_calendar("damaged", str(path), Files())
    except CalendarFileError as error:
        assert str(error).startswith(f"{path}:")  # noqa: PT017 - most are refused, and some are still calendars
