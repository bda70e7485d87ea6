"""Calendar expressions against known dates, against systemd itself, and against a walk over every minute."""

import os
import random
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulerd.core.errors import TriggerError
from schedulerd.triggers.calendar import CalendarTrigger
from schedulerd.triggers.wallclock import Daylight
from tests.support.servers import find

ROME = "Europe/Rome"
SKIP_ONCE = Daylight(gap_runs=False, repeat_both=False)


class Answer(NamedTuple):
    """What systemd says of one expression."""

    normalized: str
    times: list[str]  # of UTC; systemd does not print parts of a second


def asked_of_systemd(expressions: list[str], base: str, count: int) -> dict[str, Answer | None]:
    """Return what systemd says of each expression; None when it refuses it.

    Left out is what it fails at ("Failed to determine next elapse"): it gives up in some gaps of daylight saving.
    """
    found: dict[str, Answer | None] = {}
    for place in range(0, len(expressions), 100):
        found.update(_asked(list(dict.fromkeys(expressions[place : place + 100])), base, count))
    return found


def _asked(expressions: list[str], base: str, count: int) -> Iterator[tuple[str, Answer | None]]:
    command = [find("systemd-analyze"), "calendar", f"--iterations={count}", f"--base-time={base} UTC", "--", *expressions]
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C", "SYSTEMD_COLORS": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    refused = set(re.findall(r"^Failed to parse calendar specification '(.*)': ", done.stderr, re.MULTILINE))
    failed = set(re.findall(r"^Failed to determine next elapse for '(.*)': ", done.stderr, re.MULTILINE))
    blocks = iter(done.stdout.split("Normalized form: ")[1:])
    for expression in expressions:
        if expression in refused:
            yield expression, None
        elif expression not in failed:
            normalized, _, rest = next(blocks).partition("\n")
            pattern = r"^ *(?:Next elapse|Iter(?:\.|ation) #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)? UTC$"
            yield expression, Answer(normalized, re.findall(pattern, rest, re.MULTILINE))
    assert next(blocks, None) is None


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text + "+00:00")


def following(trigger: CalendarTrigger, after: datetime, count: int) -> list[datetime]:
    found: list[datetime] = []
    at = trigger.next_after(after)
    while at is not None and len(found) < count:
        found.append(at)
        at = trigger.next_after(at)
    return found


def seconds(times: list[datetime]) -> list[str]:
    return [f"{at:%Y-%m-%d %H:%M:%S}" for at in times]


def local(expression: str, zone: str, after: str, count: int, **options: Daylight) -> list[str]:
    times = following(CalendarTrigger(expression, zone, **options), utc(after), count)
    return [at.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M%z") for at in times]


class Maker:
    """Makes expressions at random, most of them valid; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def number(self, low: int, high: int) -> int:
        return self.random.randint(low - 1, high + 1) if self.chance(0.01) else self.random.randint(low, high)

    def part(self, low: int, high: int, *, fractions: bool = False) -> str:
        text = first = self.value(low, high, fractions)
        if self.chance(0.3):
            later = self.number(min(int(float(first)), high), high)
            text = f"{first}..{later}"
        if self.chance(0.25):
            repeat = self.random.choice(["0.5", "0.1", "7.25", "1.1", "0.0300004", "1"]) if fractions else None
            text += f"/{repeat or self.random.randint(1, max(2, (high - low) // 3))}"
        return text

    def value(self, low: int, high: int, fractions: bool) -> str:
        number = self.number(low, high)
        if fractions and self.chance(0.3):
            return f"{number}.{self.random.choice(['5', '25', '000001', '1234567', '9'])}"
        return f"{number:02}" if number >= 0 and self.chance(0.5) else str(abs(number))

    def chain(self, low: int, high: int, star: float = 0.4, *, fractions: bool = False) -> str:
        if self.chance(star):
            return "*"
        parts = self.random.choices([1, 2, 3], [6, 2, 1])[0]
        return ",".join(self.part(low, high, fractions=fractions) for _ in range(parts))

    def weekdays(self) -> str:
        names = ["Mon", "tue", "WED", "Thursday", "Fri", "saturday", "Sun"]
        parts = []
        for _ in range(self.random.randint(1, 3)):
            first, last = sorted(self.random.choices(range(7), k=2))
            parts.append(
                self.random.choice([names[first], f"{names[first]}..{names[last]}", f"{names[first]}-{names[last]}"])
            )
        return ",".join(parts) + ("," if self.chance(0.05) else "")

    def date(self) -> str:
        from_end = self.chance(0.25)
        day = f"{self.chain(1, 12)}{'~' if from_end else '-'}{self.chain(1, 28 if from_end else 31)}"
        if not self.chance(0.6):
            return day
        year = self.random.choice(
            ["*", "*", "*", self.chain(2026, 2032, 0), self.chain(24, 40, 0), "2000/4", "2026..2199/3"]
        )
        return f"{year}-{day}"

    def time(self) -> str:
        text = f"{self.chain(0, 23)}:{self.chain(0, 59)}"
        return f"{text}:{self.chain(0, 59, 0.2, fractions=True)}" if self.chance(0.5) else text

    def expression(self) -> str:
        words = [self.weekdays()] if self.chance(0.3) else []
        words += [self.date()] if self.chance(0.6) or not words else []
        words += [self.time()] if self.chance(0.8) else []
        return " ".join(words)

    def often(self) -> str:
        """Return an expression that is due several times a day, so that a few hours of a shift show something."""
        hours = self.random.choice(["*", "*", "0/2", "1/2", "0..3", "1..2", "2", "3", "1,2,3", "0,3", "2..4", "23,0,1,2"])
        minutes = self.random.choice(["0", "30", "0/15", "5/20", "15,45", "0..59/29", "10,40..45", "0..10", "59"])
        return f"{hours}:{minutes}{self.random.choice(['', '', ':30', ':0/20'])}"


# Known cases


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("02:30", "2026-01-01T02:30", "2026-01-02T02:30"),
        ("*:0/15", "2026-01-01T00:01", "2026-01-01T00:15"),
        ("Mon..Fri 9..17/4:00", "2026-01-02T18:00", "2026-01-05T09:00"),
        ("*-02-29", "2026-03-01T00:00", "2028-02-29T00:00"),
        ("Fri *-*-1,15", "2026-01-01T00:00", "2026-05-01T00:00"),  # both must match
        ("*-*~1", "2026-02-01T00:00", "2026-02-28T00:00"),
        ("*-02~03", "2028-01-01T00:00", "2028-02-27T00:00"),
        ("Mon *-05~07/1", "2026-01-01T00:00", "2026-05-25T00:00"),  # the last Monday of May
        ("*-*~1..7/2", "2026-03-26T00:00", "2026-03-27T00:00"),
        ("*-*~7/3", "2026-03-26T00:00", "2026-03-28T00:00"),
        ("2026/3-01-01", "2026-01-01T00:00", "2029-01-01T00:00"),
        ("2150-01-01", "2026-01-01T00:00", "2150-01-01T00:00"),
        ("Mon *-02-29", "2072-03-01T00:00", "2112-02-29T00:00"),  # 40 years and a day without one, for 2100 is no leap year
        ("@4102444800", "2026-01-01T00:00", "2100-01-01T00:00"),
        ("*:*:*", "2026-01-01T00:00:59.5", "2026-01-01T00:01"),
        ("*:*:0/0.5", "2026-01-01T00:00:59.5", "2026-01-01T00:01"),
        ("*:*:0/0.7", "2026-01-01T00:00:58.9", "2026-01-01T00:00:59.500000"),
        ("*:*:0/0.000001", "2026-01-01T00:00", "2026-01-01T00:00:00.000001"),
        ("05:40:23.4200004/3.1700005", "2026-01-01T05:40:23.42", "2026-01-01T05:40:26.590001"),
        ("2027-01-01 00:30 Europe/Rome", "2026-01-01T00:00", "2026-12-31T23:30"),
        ("weekly Pacific/Auckland", "2026-01-01T00:00", "2026-01-04T11:00"),
    ],
)
def test_the_next_time_is_found(expression, after, expected):
    assert CalendarTrigger(expression).next_after(utc(after)) == utc(expected)


@pytest.mark.parametrize("expression", ["2020-01-01", "@0", "Mon..Fri 1999-12-*", "2026-03-29 02:30 Europe/Rome"])
def test_what_has_passed_is_valid_and_has_no_next_time(expression):
    assert CalendarTrigger(expression).next_after(utc("2026-04-01T00:00")) is None


def test_before_1970_and_after_2199_there_is_nothing():
    assert CalendarTrigger("hourly").next_after(utc("0300-05-05T05:05")) == utc("1970-01-01T00:00")
    assert CalendarTrigger("hourly").next_after(utc("2199-12-31T23:00")) is None
    assert CalendarTrigger("hourly").next_after(utc("9990-01-01T00:00")) is None


# Normal forms; the table is of the manual, and of what systemd was found to do

NORMAL = {
    "Sat,Thu,Mon..Wed,Sat..Sun": "Mon..Thu,Sat,Sun *-*-* 00:00:00",
    "Mon,Sun 12-*-* 2,1:23": "Mon,Sun 2012-*-* 01,02:23:00",
    "Wed *-1": "Wed *-*-01 00:00:00",
    "Wed..Wed,Wed *-1": "Wed *-*-01 00:00:00",
    "Wed, 17:48": "Wed *-*-* 17:48:00",
    "Wed-Sat,Tue 12-10-16": "Tue..Sat 2012-10-16 00:00:00",
    "*-*-7 0:0:0": "*-*-07 00:00:00",
    "10-15": "*-10-15 00:00:00",
    "monday *-12-* 17:00": "Mon *-12-* 17:00:00",
    "Mon,Fri *-*-3,1,2 *:30:45": "Mon,Fri *-*-01,02,03 *:30:45",
    "12,14,13,12:20,10,30": "*-*-* 12,13,14:10,20,30:00",
    "12..14:10,20,30": "*-*-* 12..14:10,20,30:00",
    "mon,fri *-1/2-1,3 *:30:45": "Mon,Fri *-01/2-01,03 *:30:45",
    "Sat,Sun 12-05 08:05:40": "Sat,Sun *-12-05 08:05:40",
    "05:40:23.4200004/3.1700005": "*-*-* 05:40:23.420000/3.170001",
    "2003-02..04-05": "2003-02..04-05 00:00:00",
    "2003-03-05 05:40 uTc": "2003-03-05 05:40:00 UTC",
    "weekly Pacific/Auckland": "Mon *-*-* 00:00:00 Pacific/Auckland",
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "Daily": "*-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "SEMI-ANNUALLY": "*-01,07-01 00:00:00",
    "biannually": "*-01,07-01 00:00:00",
    "bi-annually": "*-01,07-01 00:00:00",
    "anually": "*-01-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "*:2/3": "*-*-* *:02/3:00",
    "*-*~05,3 ": "*-*~03,05 00:00:00",
    "*-*~* 00:00:00": "*-*-* 00:00:00",
    "*~3": "*-*~03 00:00:00",
    "*:*:0/1": "*-*-* *:*:*",
    "*:*:5,0/1": "*-*-* *:*:*",
    "*:*:0..30": "*-*-* *:*:00..30",
    "*:*:5..9/1": "*-*-* *:*:05..09",
    "*:*:0..5/0.5": "*-*-* *:*:00..05/0.500000",
    "*:*:1/0.5,1": "*-*-* *:*:01,01/0.500000",
    "12:0:1.5/1": "*-*-* 12:00:01.500000/1",
    "*:*:43..43/0.5": "*-*-* *:*:43",
    "5..5:00": "*-*-* 05:00:00",
    "1..3/5:0": "*-*-* 01:00:00",
    "1,1,2..4/1:0": "*-*-* 01,02..04:00:00",
    "2026..2199/2-1-1": "2026..2198/2-01-01 00:00:00",
    "70..72-1-1": "1970..1972-01-01 00:00:00",
    "69-1-1": "2069-01-01 00:00:00",
    "Mon..Sun 12:00": "*-*-* 12:00:00",
    "2027-1-1  UTC": "2027-01-01 00:00:00 UTC",
    "@ 5": "1970-01-01 00:00:05 UTC",
    "@4102444800 Europe/Rome": "2100-01-01 00:00:00 UTC",
    "Fri @4102444800": "Fri 2100-01-01 00:00:00 UTC",
    "12:00 Etc/UTC": "*-*-* 12:00:00 Etc/UTC",
}


@pytest.mark.parametrize(("expression", "expected"), NORMAL.items())
def test_the_normal_form_is_known_and_a_fixed_point(expression, expected):
    trigger = CalendarTrigger(expression)

    assert trigger.normalized == expected
    assert CalendarTrigger(expected).normalized == expected
    assert CalendarTrigger(expected) == trigger


def test_the_normal_forms_of_the_table_are_those_of_systemd():
    answers = asked_of_systemd(list(NORMAL), "2026-03-28 00:00:00", 1)

    assert {expression: answer.normalized for expression, answer in answers.items()} == NORMAL


# Refusals

REFUSED = {
    "": "it is empty",
    " UTC": "it is empty",
    "7": "'7' is neither a date",
    "tomorrow": "'tomorrow' is neither a weekday",
    "secondly": "nor a keyword such as minutely",
    "Mon..": "'' in 'Mon..' is neither a weekday",
    "Mon,,Tue": "'' in 'Mon,,Tue' is neither a weekday",
    "Fri..Mon": "'Fri..Mon' run backwards",
    "25:00": "hour 25 is outside 0 to 23",
    "24:00": "hour 24 is outside 0 to 23",
    "12:60": "minute 60 is outside 0 to 59",
    "12:00:60": "second 60 is outside 0 to 59",
    "12:00:59.9999999": "second 60 is outside 0 to 59",
    "*-13-01": "month 13 is outside 1 to 12",
    "*-*-0": "day 0 is outside 1 to 31",
    "*-*~29": "day from the end 29 is outside 1 to 28",
    "*-*~5/5": "the repeat in day from the end 5/5 is too large",
    "2200-01-01": "year 2200 is outside 1970 to 2199",
    "1969-01-01": "year 1969 is outside 1970 to 2199",
    "*/5:00": "writes 0/5, not",
    "*:0/0": "must be above 0",
    "*:*:0/0.0000001": "must be above 0",
    "23/1:00": "the repeat in hour 23/1 is too large",
    "5..2:00": "the range 5..2 in hour runs backwards",
    "1,:00": "'' is not a valid hour",
    "0.5:00": "'0.5' is not a valid hour",
    "*:*:0..0.5": "shorter than a second",
    "1/2147483648:0": "is too large",
    "2016~11-22": "is not a date",
    "1-2-3-4": "is not a date",
    "2016-01-01 7": "'7' is not a time",
    "1:2:3:4": "is not a time",
    " 12:00": "a space too many before '12:00'",
    "12:00 ": "only a zone may follow",
    "12:00 Mars/Olympus": "'Mars/Olympus' at the end is not a time zone",
    "12:00 europe/rome": "is not a time zone",
    "daily  UTC": "'daily' is neither a weekday",
    "12:00 UTC UTC": "after the time '12:00' is not understood",
    "@-1": "is not a Unix timestamp",
    "@1.5": "is not a Unix timestamp",
    "@7258118400": "up to the end of 2199",
    "٣:00": "is not a valid hour",
    "*:*:" + ",".join(f"{number % 60}.{number}" for number in range(242)): "at most 241",
}
NEVER = ["*-02-30", "*-04-31", "*-02,04,06,09,11-31", "2027-02-29", "Wed..Sat,Tue 12-10-15"]  # the last is of the manual


@pytest.mark.parametrize(("expression", "why"), REFUSED.items())
def test_an_invalid_calendar_expression_is_rejected_with_the_reason(expression, why):
    with pytest.raises(TriggerError, match=re.escape(why)) as error:
        CalendarTrigger(expression)

    assert (error.value.field, error.value.text) == ("calendar", expression)


def test_systemd_refuses_all_of_that_too():
    answers = asked_of_systemd(list(REFUSED), "2026-03-28 00:00:00", 1)

    assert [expression for expression, answer in answers.items() if answer is not None] == []


@pytest.mark.parametrize("expression", NEVER)
def test_a_day_that_no_year_has_is_rejected(expression):
    with pytest.raises(TriggerError, match="can never be due"):
        CalendarTrigger(expression)


def test_more_fine_repeats_than_can_be_counted_are_refused():
    fine = [f"{start / 1000:.3f}/0.{step:06}" for start, step in enumerate([13, 17, 19, 23, 29, 31, 37, 41, 43])]

    assert CalendarTrigger("*:*:" + ",".join(fine[:8])).count(utc("2026-01-01T00:00"), utc("2027-01-01T00:00")) > 0
    with pytest.raises(TriggerError, match="more than 8 fine repeats"):
        CalendarTrigger("*:*:" + ",".join(fine))


def test_an_unknown_zone_of_the_job_is_refused():
    with pytest.raises(ValueError, match="Mars/Olympus"):
        CalendarTrigger("daily", "Mars/Olympus")


# Against systemd. Decided otherwise, and left out here:
# - a list of days from the end (`*~27,28`) is one systemd may refuse: it lowers the limit with each element;
# - what can never be due is refused; systemd says "never";
# - with a repeat that leads over the end of a month, systemd loses the first times of the next month, or of the year;
# - seconds that are each whole second and more (`0/1,0.5`) are only `*` for systemd when it prints them.


def difference(expression: str, answer: Answer | None, base: str, count: int, daylight: Daylight) -> str | None:
    """Return in what the trigger differs from systemd's answer, or None."""
    try:
        trigger = CalendarTrigger(expression, daylight=daylight)
    except TriggerError as error:
        is_never = answer is not None and not answer.times and "can never be due" in error.why
        return None if answer is None or is_never else f"{expression}: only we refuse it: {error}"
    if answer is None:
        return None if re.search("~[^ ]*,", expression) else f"{expression}: only systemd refuses it"
    if trigger.normalized != answer.normalized and not re.search(r":(00,)?00/1,", trigger.normalized):
        return f"{expression}: {trigger.normalized} is {answer.normalized} for systemd"
    times = seconds(following(trigger, utc(base.replace(" ", "T")), count))
    if times == answer.times or ("/" in expression and loses_the_start_of_a_month(answer.times, times)):
        return None
    return f"{expression}: {times} are {answer.times} for systemd"


def loses_the_start_of_a_month(theirs: list[str], ours: list[str]) -> bool:
    """Return whether systemd has nothing but what is due, and only leaves out the first ones of a month."""
    if not theirs or not ours:
        return False
    lost = [at for at in ours if at not in theirs and at < theirs[-1]]
    extra = [at for at in theirs if at not in ours and at < ours[-1]]
    return (
        bool(lost)
        and not extra
        and all(at < min([each for each in theirs if each[:7] == at[:7]], default="9") for at in lost)
    )


def differences(expressions: list[str], base: str, count: int, daylight: Daylight = SKIP_ONCE) -> list[str]:
    answers = asked_of_systemd(expressions, base, count)
    assert len(answers) > len(set(expressions)) * 0.9  # it fails at few
    assert sum(answer is not None for answer in answers.values()) > len(answers) / 2
    found = (difference(each, answer, base, count, daylight) for each, answer in answers.items())
    return [text for text in found if text is not None]


@pytest.mark.parametrize("base", ["2026-03-28 00:00:00", "2027-12-31 23:59:59"])
def test_it_agrees_with_systemd_in_utc(base):
    maker = Maker(252)

    assert differences([f"{maker.expression()} UTC" for _ in range(800)], base, 5) == []


SHIFTS = [  # a zone, and some hours before one of its shifts
    (ROME, "2026-03-28 22:30:00"), (ROME, "2026-10-24 22:30:00"), ("America/New_York", "2026-11-01 04:00:00"),
    ("America/St_Johns", "2026-03-08 04:30:00"), ("America/St_Johns", "2026-11-01 02:30:00"),
    ("Pacific/Auckland", "2026-04-04 11:00:00"), ("Australia/Lord_Howe", "2026-10-03 12:00:00"),
    ("Australia/Lord_Howe", "2026-04-04 12:00:00"), ("America/Santiago", "2026-09-06 00:00:00"),
    ("Africa/Casablanca", "2026-02-14 23:00:00"),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "base"), SHIFTS)
def test_it_agrees_with_systemd_around_daylight_saving_when_repeats_are_due_once(zone, base):
    # Not Casablanca in spring: after a gap of its negative daylight saving systemd loses the rest of the day.
    maker = Maker(20)
    expressions = [maker.often() for _ in range(40)] + [maker.expression() for _ in range(40)]

    assert differences([f"{each} {zone}" for each in expressions], base, 12) == []


SECOND_PASSES = [
    (ROME, "2026-10-25 01:10:00"), ("America/New_York", "2026-11-01 06:20:00"),
    ("Australia/Lord_Howe", "2026-04-04 15:10:00"),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "base"), SECOND_PASSES)
def test_from_inside_a_second_pass_systemd_goes_through_it_as_with_repeat_both(zone, base):
    maker = Maker(21)
    both = Daylight(gap_runs=False, repeat_both=True)

    assert differences([f"{maker.often()} {zone}" for _ in range(60)], base, 12, both) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_normal_form_of_what_is_made_at_random_is_a_fixed_point(seed):
    maker = Maker(seed)
    for _ in range(500):
        try:
            trigger = CalendarTrigger(maker.expression(), ROME)
        except TriggerError:
            continue
        again = CalendarTrigger(trigger.normalized, ROME)
        assert (again, again.normalized, again.text) == (trigger, trigger.normalized, trigger.text)


# Daylight saving


def test_a_fixed_time_in_the_gap_is_skipped():
    assert local("02:30", ROME, "2026-03-28T12:00", 2) == ["03-30 02:30+0200", "03-31 02:30+0200"]


def test_it_runs_after_the_gap_when_configured():
    run = Daylight(gap_runs=True, repeat_both=False)

    assert local("02:30", ROME, "2026-03-28T12:00", 2, daylight=run) == ["03-29 03:00+0200", "03-30 02:30+0200"]


@pytest.mark.parametrize("expression", ["02:30", "1..2:30", "2,3:30", "2:0..59", "2..2/3:30", "2:30:*"])
def test_fixed_hours_and_minutes_run_once_in_a_repeated_hour(expression):
    assert not CalendarTrigger(expression, ROME).daylight.repeat_both


@pytest.mark.parametrize("expression", ["hourly", "*:30", "2:*", "0/2:30", "0..4/2:30", "2:0/30"])
def test_a_star_or_a_repeat_goes_through_both_passes(expression):
    trigger = CalendarTrigger(expression, ROME)

    assert trigger.daylight == Daylight(gap_runs=False, repeat_both=True)
    assert trigger.rhythm is trigger


def test_an_hourly_time_occurs_twice_in_a_repeated_hour():
    found = local("*:30", ROME, "2026-10-24T23:50", 3)

    assert found == ["10-25 02:30+0200", "10-25 02:30+0100", "10-25 03:30+0100"]


def test_an_hourly_time_skips_the_gap():
    assert local("hourly", ROME, "2026-03-29T00:00", 2) == ["03-29 03:00+0200", "03-29 04:00+0200"]


# What it is called, and what is the same


def test_a_zone_in_the_expression_goes_before_the_zone_of_the_job():
    trigger = CalendarTrigger("daily Asia/Tokyo", ROME)

    assert (trigger.timezone, trigger.kind) == ("Asia/Tokyo", "calendar")
    assert trigger.text == "calendar: *-*-* 00:00:00 Asia/Tokyo"


def test_the_text_names_what_is_not_the_default_of_daylight_saving():
    trigger = CalendarTrigger("daily", ROME, Daylight(gap_runs=True, repeat_both=False))

    assert trigger.text == "calendar: *-*-* 00:00:00 Europe/Rome (gap run, repeat once)"


def test_two_that_mean_the_same_are_equal():
    assert CalendarTrigger("daily", ROME) == CalendarTrigger(f"*-*-* 0:00 {ROME}")
    assert CalendarTrigger("daily", ROME) != CalendarTrigger("daily")
    assert hash(CalendarTrigger("daily", ROME)) == hash(CalendarTrigger("*-*-*", ROME))


# Against a walk over every minute

ZONES = [ROME, "America/New_York", "America/St_Johns", "Asia/Kolkata", "Pacific/Auckland", "Australia/Lord_Howe", "UTC"]
STARTS = [datetime.fromisoformat(f"{base}+00:00") for _, base in SHIFTS]
INSTANTS = st.tuples(st.sampled_from(STARTS), st.integers(-600, 600)).map(lambda pair: pair[0] + timedelta(minutes=pair[1]))


def chains(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}..{max(pair)}")
    ahead = st.integers(low, high - 2).flatmap(
        lambda start: st.integers(2, high - start).map(lambda step: f"{start}/{step}")
    )
    part = st.one_of(
        number.map(str), span, ahead, st.tuples(span, st.integers(1, 6)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    )
    return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join))


WEEKDAYS = st.sampled_from(["", "", "Mon..Fri ", "Sat,Sun ", "Sun ", "Tue,Thu..Sat "])
WHOLE_MINUTES = st.tuples(WEEKDAYS, chains(1, 12), st.sampled_from("-~"), chains(1, 28), chains(0, 23), chains(0, 59)).map(
    lambda each: "{}{}{}{} {}:{}".format(*each)
)


def values(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dots, last = span.partition("..")
        begin, end = (low, high) if span == "*" else (int(first), int(last) if dots else high if slash else int(first))
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


def days_from_end(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        start, slash, step = part.partition("/")
        is_open = slash and ".." not in start
        found |= set(range(int(start), 0, -int(step))) if is_open else values(part, 1, 31)
    return found


def matcher(expression: str):
    """Return a function that says whether a local time matches, in the plainest way."""
    *weekdays, day, time = expression.split()
    months, separator, dates = re.split("([-~])", day)
    hours, minutes = time.split(":")
    names = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    numbered = re.sub("[A-Z][a-z]+", lambda name: str(names.index(name[0])), weekdays[0] if weekdays else "*")
    allowed = [values(numbered, 0, 6), values(months, 1, 12), values(hours, 0, 23), values(minutes, 0, 59)]
    from_end = separator == "~" and dates != "*"
    days = days_from_end(dates) if from_end else values(dates, 1, 31)

    def matches(at: datetime) -> bool:
        day = ((at.replace(day=28) + timedelta(days=4)).replace(day=1) - at).days if from_end else at.day
        return day in days and all(
            number in each for number, each in zip((at.weekday(), at.month, at.hour, at.minute), allowed, strict=True)
        )

    return matches


def walked(trigger: CalendarTrigger, start: datetime, minutes: int) -> list[datetime]:
    """Return the due times by asking of every minute whether its local time matches: slow, and plain to see."""
    matches, seen, found = matcher(trigger.expression), set(), []
    for step in range(-180, minutes + 1):  # from earlier on, so that a repeated hour is known as one
        at = start + timedelta(minutes=step)
        here = at.astimezone(ZoneInfo(trigger.timezone)).replace(tzinfo=None)
        is_due = (trigger.daylight.repeat_both or here not in seen) and matches(here)
        seen.add(here)
        if is_due and step > 0:
            found.append(at)
    return found


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(WHOLE_MINUTES, st.sampled_from(ZONES), INSTANTS)
def test_it_agrees_with_a_walk_over_every_minute(expression, zone, start):
    try:
        trigger = CalendarTrigger(expression, zone)
    except TriggerError as error:
        assert "can never be due" in error.why or "too large" in error.why  # noqa: PT017
        return
    end, found, at = start + timedelta(minutes=1440), [], start
    while (at := trigger.next_after(at)) is not None and at <= end:
        found.append(at)

    assert found == walked(trigger, start, 1440)
    assert trigger.count(start, end) == len(found)


# Counting


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(ZONES), INSTANTS, st.integers(0, 10**13))
def test_counting_is_walking(seed, zone, start, micros):
    try:
        trigger = CalendarTrigger(Maker(seed).expression(), zone)
    except TriggerError:
        return
    walk = following(trigger, start, 200)
    end = (
        min(start + timedelta(microseconds=micros), walk[-1]) if len(walk) == 200 else start + timedelta(microseconds=micros)
    )

    assert trigger.count(start, end) == sum(at <= end for at in walk)
    assert all(trigger.next_after(at - timedelta(microseconds=1)) == at for at in walk)
    assert walk == sorted(set(walk))
    assert not walk or walk[0] > start


def progression(start: int, step: int, length: int) -> str:
    """Return `start/step` or `start..stop/step`, given in milliseconds."""
    stop = f"..{(start + length) / 1000:.3f}" if length > 1000 else ""
    return f"{start / 1000:.3f}{stop}/{step / 1000:.3f}"


PROGRESSIONS = st.builds(progression, st.integers(0, 2000), st.integers(20, 400), st.integers(-50_000, 57_000))


@settings(max_examples=100, deadline=None)
@given(st.lists(PROGRESSIONS, min_size=1, max_size=6), st.integers(0, 8_000_000))
def test_fine_repeats_are_counted_as_they_are_walked(parts, offset):
    trigger = CalendarTrigger(f"*:*:{','.join(parts)}")
    start = utc("2026-01-01T00:00:00") + timedelta(microseconds=offset)
    end, number, at = start + timedelta(seconds=3), 0, start
    while (at := trigger.next_after(at)) <= end:
        number += 1

    assert trigger.count(start, end) == number


def test_every_microsecond_is_calculated_and_never_enumerated():  # which would take longer than anybody waits
    trigger = CalendarTrigger("*:*:0/0.000001,0.5/0.000003", ROME)

    assert trigger.next_after(utc("2026-05-01T10:00")) == utc("2026-05-01T10:00:00.000001")
    assert trigger.count(utc("2026-01-01T00:00"), utc("2036-01-01T00:00")) == 3652 * 86_400 * 10**6
