"""The phrases of `schedule`: against the library itself with a frozen clock, against cron, and against plain walks."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
import schedule
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schedulerd.core.errors import TriggerError
from schedulerd.triggers.factory import CronTrigger, IntervalTrigger
from schedulerd.triggers.phrases import UNITS, WEEKDAYS, phrase_from
from schedulerd.triggers.wallclock import Daylight

ROME, KOLKATA, LORD_HOWE = "Europe/Rome", "Asia/Kolkata", "Australia/Lord_Howe"
ZONES = [ROME, KOLKATA, LORD_HOWE, "UTC", "America/New_York", "America/St_Johns", "Pacific/Apia", "Africa/Casablanca"]
MICROSECOND = timedelta(microseconds=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text + "+00:00")


def rule(text: str, zone: str = "UTC", daylight: Daylight | None = None, seed: str = "job"):
    return phrase_from(text, zone, daylight, seed)


def times(trigger, after: datetime, count: int) -> list[datetime]:
    found = []
    for _ in range(count):
        after = trigger.next_after(after)
        found.append(after)
    return found


def local(text: str, zone: str, after: str, count: int, daylight: Daylight | None = None) -> list[str]:
    found = times(rule(text, zone, daylight), utc(after), count)
    return [at.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M:%S%z").replace(":00+", "+") for at in found]


def gaps(found: list[datetime]) -> set[float]:
    return {(later - earlier).total_seconds() for earlier, later in pairwise(found)}


# What it means, by example.


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("day at 03:00", "2026-05-01T03:00", "2026-05-02T03:00"),
        ("day at 03:00:30", "2026-05-01T03:00", "2026-05-01T03:00:30"),
        ("monday at 09:30", "2026-05-01T00:00", "2026-05-04T09:30"),
        ("sunday", "2026-05-01T13:45", "2026-05-03T00:00"),
        ("hour at :15", "2026-05-01T09:15", "2026-05-01T10:15"),
        ("hour at 15:30", "2026-05-01T09:15", "2026-05-01T09:15:30"),
        ("minute at :30", "2026-05-01T09:15", "2026-05-01T09:15:30"),
        ("2 days at 03:00", "1970-01-01T03:00", "1970-01-03T03:00"),
        ("2 days at 03:00", "2026-05-01T03:00", "2026-05-03T03:00"),  # days 20574 and 20576
        ("6 hours at :15", "2026-05-01T01:00", "2026-05-01T06:15"),
        ("10 minutes at :30", "2026-05-01T09:11", "2026-05-01T09:20:30"),
    ],
)
def test_the_next_time_is_found(text, after, expected):
    assert rule(text).next_after(utc(after)) == utc(expected)


@pytest.mark.parametrize("unit", UNITS)
def test_a_number_of_units_alone_is_an_interval(unit):
    assert rule(f"7 {unit}") == IntervalTrigger(7.0 * UNITS[unit])
    assert rule(unit) == rule(unit.removesuffix("s")) == rule(f"every 1 {unit}") == IntervalTrigger(float(UNITS[unit]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Every  Day at 03:00:00", "every: day at 03:00 Europe/Rome"),
        ("1 days at 03:00:01", "every: day at 03:00:01 Europe/Rome"),
        ("3 to 3 days at 03:00", "every: 3 days at 03:00 Europe/Rome"),
        ("monday", "every: monday at 00:00 Europe/Rome"),
        ("hours at 15:00", "every: hour at :15 Europe/Rome"),
        ("2 hours at 15:30", "every: 2 hours at 15:30 Europe/Rome"),
        ("minutes at :05", "every: minute at :05 Europe/Rome"),
        ("1 to 5 minute", "every: 1 to 5 minutes"),
    ],
)
def test_each_rule_has_one_normal_form_of_its_phrase(text, expected):
    found = rule(text, ROME)

    assert (found.kind, found.text) == ("interval", expected)
    assert rule(expected.removeprefix("every: ").removesuffix(" " + ROME), ROME) == found


def test_the_text_contains_a_daylight_saving_rule_that_is_not_the_default():
    assert rule("day at 02:30", ROME, Daylight(False, True)).text == (
        "every: day at 02:30 Europe/Rome (gap skip, repeat both)"
    )
    assert rule("day at 02:30", ROME, Daylight(True, False)) == rule("day at 02:30", ROME)


# Daylight saving.


def test_a_time_of_a_day_in_the_gap_runs_right_after_it_and_once_in_the_repeated_hour():
    assert local("day at 02:30", ROME, "2026-03-28T12:00", 2) == ["03-29 03:00+0200", "03-30 02:30+0200"]
    assert local("day at 02:30", ROME, "2026-10-24T12:00", 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]
    assert local("sunday at 02:30", ROME, "2026-03-28T12:00", 2) == ["03-29 03:00+0200", "04-05 02:30+0200"]


def test_what_the_job_sets_overrides_it():
    both = Daylight(gap_runs=False, repeat_both=True)

    assert local("day at 02:30", ROME, "2026-03-28T12:00", 1, both) == ["03-30 02:30+0200"]
    assert local("day at 02:30", ROME, "2026-10-24T12:00", 2, both) == ["10-25 02:30+0200", "10-25 02:30+0100"]


def test_the_minute_of_an_hour_follows_elapsed_time():
    assert local("hour at :15", ROME, "2026-03-29T00:00", 2) == ["03-29 01:15+0100", "03-29 03:15+0200"]
    assert local("hour at :15", ROME, "2026-10-25T00:00", 3) == ["10-25 02:15+0200", "10-25 02:15+0100", "10-25 03:15+0100"]


def test_each_third_day_has_its_time_over_a_shift():
    assert local("3 days at 02:30", ROME, "2026-03-26T12:00", 2) == ["03-29 03:00+0200", "04-01 02:30+0200"]
    assert local("3 days at 02:30", ROME, "2026-10-24T12:00", 2) == ["10-25 02:30+0200", "10-28 02:30+0100"]


def test_hours_of_elapsed_time_show_the_minute_of_a_zone_with_half_an_hour():
    assert local("2 hours at :15", KOLKATA, "2026-05-01T00:00", 3) == [
        "05-01 06:15+0530",
        "05-01 08:15+0530",
        "05-01 10:15+0530",
    ]
    assert local("2 hours at :15", "Asia/Kathmandu", "2026-05-01T00:00", 2) == ["05-01 06:15+0545", "05-01 08:15+0545"]


def test_hours_of_elapsed_time_pass_a_shift_without_a_jump():
    assert local("2 hours at :15", ROME, "2026-03-29T00:00", 3) == [
        "03-29 01:15+0100",
        "03-29 04:15+0200",
        "03-29 06:15+0200",
    ]


def test_a_shift_by_half_an_hour_keeps_the_minute():
    assert local("2 hours at :45", LORD_HOWE, "2026-10-03T12:00", 3) == [
        "10-03 22:45+1030", "10-04 00:45+1030", "10-04 03:45+1100",
    ]  # fmt: skip


def test_a_time_that_a_shift_removes_moves_within_its_own_step():
    assert local("3 hours at :15", LORD_HOWE, "2026-10-03T12:50", 2) == ["10-04 03:15+1100", "10-04 05:15+1100"]
    assert times(rule("2 minutes at :15", "Africa/Monrovia"), utc("1972-01-07T00:43:00"), 2) == [  # from -00:44:30 to UTC
        utc("1972-01-07T00:45:15"), utc("1972-01-07T00:46:15"),
    ]  # fmt: skip


# Against the library, in UTC. Its clock is `schedule.datetime`, which goes from each due time to the next.

STARTS = st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1)).map(lambda at: at.replace(microsecond=0))
LATE = timedelta(milliseconds=1)  # as in life: 1.1.0 runs a weekly job again and again when asked in the very microsecond


class Phrase(NamedTuple):
    number: int | None
    latest: int | None
    unit: str
    at: str | None

    @property
    def text(self) -> str:
        numbers = "" if self.number is None else f"{self.number} "
        numbers += "" if self.latest is None else f"to {self.latest} "
        return f"{numbers}{self.unit}" + ("" if self.at is None else f" at {self.at}")


def library(phrase: Phrase, start: datetime, count: int, late: timedelta = LATE) -> list[datetime]:
    """Return the first times at which the library runs a job made at `start`, each asked for a little `late`."""
    found: list[datetime] = []
    now = [start.replace(tzinfo=None) + late]
    frozen = type("Frozen", (datetime,), {"now": classmethod(lambda _cls, _zone=None: now[0])})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            schedule, "datetime", SimpleNamespace(datetime=frozen, timedelta=timedelta, time=schedule.datetime.time)
        )
        scheduler = schedule.Scheduler()
        job = scheduler.every() if phrase.number is None else scheduler.every(phrase.number)
        job = job if phrase.latest is None else job.to(phrase.latest)
        job = getattr(job, phrase.unit)
        job = job if phrase.at is None else job.at(phrase.at)
        job.do(lambda: found.append(job.next_run.replace(tzinfo=UTC)))
        for _ in range(count):
            now[0] = job.next_run + late
            scheduler.run_pending()
    return found


def sixty() -> st.SearchStrategy[str]:
    return st.integers(0, 59).map("{:02}".format)


HOURS = st.integers(0, 23).map("{:02}".format)
DAY_TIMES = st.builds(":".join, st.one_of(st.tuples(HOURS, sixty()), st.tuples(HOURS, sixty(), sixty())))
HOUR_TIMES = st.one_of(sixty().map(":{}".format), st.builds("{}:{}".format, sixty(), sixty()))
MINUTE_TIMES = sixty().map(":{}".format)
TIMES = {"days": DAY_TIMES, "hours": HOUR_TIMES, "minutes": MINUTE_TIMES}
WALL_PHRASES = st.one_of(
    st.builds(Phrase, st.none(), st.none(), st.sampled_from(["day", "days", *WEEKDAYS]), DAY_TIMES),
    st.builds(Phrase, st.sampled_from([None, 1]), st.none(), st.sampled_from(["hour", "hours"]), HOUR_TIMES),
    st.builds(Phrase, st.just(1), st.none(), st.sampled_from(["minute", "minutes"]), MINUTE_TIMES),
)
STEPPED_PHRASES = st.sampled_from(list(TIMES)).flatmap(
    lambda unit: st.builds(Phrase, st.integers(2, 100), st.none(), st.just(unit), TIMES[unit])
)
RANDOM_PHRASES = st.builds(
    lambda low, more, unit: Phrase(low, low + more, unit, None),
    st.integers(1, 50), st.integers(1, 50), st.sampled_from(list(UNITS)),
)  # fmt: skip
PLAIN_PHRASES = st.builds(Phrase, st.integers(1, 100), st.none(), st.sampled_from(list(UNITS)), st.none())


@settings(max_examples=400, deadline=None)
@given(WALL_PHRASES, STARTS)
def test_times_on_the_wall_clock_are_those_of_the_library(phrase, start):
    start = start.replace(tzinfo=UTC)

    assert times(rule(phrase.text), start, 6) == library(phrase, start, 6)


@settings(max_examples=300, deadline=None)
@given(STEPPED_PHRASES, STARTS)
def test_several_units_at_a_time_have_the_spacing_and_the_time_of_the_library(phrase, start):
    step = UNITS[phrase.unit]
    theirs, ours = library(phrase, start, 6), times(rule(phrase.text), start.replace(tzinfo=UTC), 6)

    assert gaps(theirs) == gaps(ours) == {phrase.number * step}
    assert {at.timestamp() % step for at in theirs} == {at.timestamp() % step for at in ours}


@settings(max_examples=200, deadline=None)
@given(PLAIN_PHRASES, STARTS)
def test_several_units_have_the_spacing_of_the_library(phrase, start):
    theirs = library(phrase, start, 4, timedelta())
    ours = times(rule(phrase.text), start.replace(tzinfo=UTC), 4)

    assert gaps(theirs) == gaps(ours) == {phrase.number * UNITS[phrase.unit]}


@settings(max_examples=200, deadline=None)
@given(RANDOM_PHRASES, STARTS, st.text("abc/-", max_size=8))
def test_random_gaps_are_within_the_bounds_as_in_the_library(phrase, start, seed):
    shortest, longest = phrase.number * UNITS[phrase.unit], phrase.latest * UNITS[phrase.unit]
    theirs = library(phrase, start, 8, timedelta())
    ours = times(rule(phrase.text, seed=seed), start.replace(tzinfo=UTC), 8)

    assert all(shortest <= gap <= longest for gap in gaps(theirs) | gaps(ours))


# Which texts are accepted. Decided otherwise than in the library, each by a rule of the module's docstring:


def is_decided_otherwise(phrase: Phrase) -> bool:
    """Return whether the library accepts a phrase that is refused here."""
    is_random = phrase.latest is not None and phrase.latest != (phrase.number or 1)
    what_is_random_has_no_fixed_time = is_random and phrase.at is not None
    what_is_random_has_no_fixed_day = is_random and phrase.unit in WEEKDAYS
    return what_is_random_has_no_fixed_time or what_is_random_has_no_fixed_day


def library_accepts(phrase: Phrase) -> bool:
    try:
        library(phrase, datetime(2026, 5, 1), 0)
    except (schedule.ScheduleError, AttributeError):
        return False
    return True


def we_accept(text: str) -> bool:
    try:
        rule(text)
    except TriggerError:
        return False
    return True


UNIT_WORDS = [*UNITS, *(unit.removesuffix("s") for unit in UNITS), *WEEKDAYS, "mondays", "month", "mon", "min"]
AT_TEXTS = st.one_of(
    st.none(),
    DAY_TIMES,
    HOUR_TIMES,
    MINUTE_TIMES,
    st.sampled_from(
        ["24:00", "29:59", "30:00", "3:00", "23:60", "60:00", ":60", ":5", "99", "03", "::", ":", "03:00:60", ":15:30"]
    ),
    st.text("0123456789:", min_size=1, max_size=9),
)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(
    st.sampled_from([None, 1, 2, 10]), st.sampled_from([None, None, None, 1, 2, 5]), st.sampled_from(UNIT_WORDS), AT_TEXTS
)
def test_what_the_library_refuses_is_refused_and_nothing_else(number, latest, unit, at):
    assume(number is not None or latest is None)  # `to 5 minutes` is no phrase
    phrase = Phrase(number, latest, unit, at)

    assert we_accept(phrase.text) == (library_accepts(phrase) and not is_decided_otherwise(phrase))


@pytest.mark.parametrize(
    "phrase", [Phrase(2, 5, "hours", ":15"), Phrase(1, 3, "monday", None), Phrase(1, 3, "day", "03:00")]
)
def test_what_is_decided_otherwise_is_accepted_by_the_library(phrase):
    assert library_accepts(phrase)
    assert is_decided_otherwise(phrase)
    assert not we_accept(phrase.text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2 mondays", "weekdays are singular and have no number: expected `monday` or `monday at 09:30`"),
        ("1 to 3 monday", "weekdays are singular"),
        ("day at :30", "':30' is not a time for days: expected HH:MM or HH:MM:SS .* such as `day at 03:00`"),
        ("hour at 99", "'99' is not a time for hours: expected :MM or MM:SS, such as `hour at :15`"),
        ("hour at 03:00:30", "'03:00:30' is not a time for hours"),
        ("minute at 15:30", "'15:30' is not a time for minutes: expected :SS, such as `minute at :30`"),
        ("monday at 24:00", "'24:00' is not a time for monday: expected HH:MM"),
        ("week at 03:00", "`at` does not go with weeks: name the day instead, such as `monday at 09:30`"),
        ("10 seconds at :30", "`at` does not go with seconds"),
        ("2 hour", "`2 hour`: expected `2 hours`"),
        ("fortnight", "'fortnight' is not a unit: expected seconds, .* such as `2 hours`"),
        ("mon at 09:30", "'mon' is not a unit: .* weekday in full"),
        ("day at", "a time is missing after `at`: expected HH:MM"),
        ("day at 03:00 pm", "'pm' is not expected after the time"),
        ("day 03:00", "'03:00' is not expected there: only `at`"),
        ("10 to 5 minutes", "`10 to 5` runs backwards"),
        ("5 to", "a number is missing after `5 to`"),
        ("5 to minutes", "'minutes': a whole number from 1 on"),
        ("5 to 10 minutes at :30", "`at` does not go with `5 to 10`"),
        ("0 minutes", "'0': a whole number from 1 on"),
        ("-5 minutes", "'-5': a whole number"),
        ("1.5 hours", "'1.5': a whole number from 1 on is expected, such as `2 hours`"),
        ("٣ hours", "'٣': a whole number"),
        ("day at ٠٣:٠٠", "is not a time for days"),
        ("36526 days", "36526 days are too long: at most 100 years"),
        ("1 to 36526 days", "36526 days are too long"),
        ("3651 days at 03:00", "3651 days are too long: with `at`, at most 3650 days"),
        ("99999999999 days", "a whole number"),
        ("", "a unit is missing: expected seconds"),
        ("every", "a unit is missing"),
        ("every every day", "'every' is not a unit"),
    ],
)
def test_an_invalid_phrase_is_rejected_with_the_reason(text, why):
    with pytest.raises(TriggerError, match=why) as error:
        rule(text)

    assert (error.value.field, error.value.text) == ("every", text)


def test_an_unknown_zone_is_refused():
    with pytest.raises(TriggerError, match="Mars/Olympus") as error:
        rule("day at 03:00", "Mars/Olympus")

    assert error.value.field == "timezone"


# Against cron, which knows the same walls, and against walks.

SHIFTS = [
    datetime(2026, 3, 28, 20, tzinfo=UTC), datetime(2026, 10, 24, 20, tzinfo=UTC), datetime(2026, 3, 8, 3, tzinfo=UTC),
    datetime(2026, 11, 1, 2, tzinfo=UTC), datetime(2026, 4, 4, 10, tzinfo=UTC), datetime(2026, 10, 3, 10, tzinfo=UTC),
    datetime(2011, 12, 29, 20, tzinfo=UTC), datetime(2025, 12, 31, 18, tzinfo=UTC),
]  # fmt: skip
NEAR = st.builds(lambda at, seconds: at + timedelta(seconds=seconds), st.sampled_from(SHIFTS), st.integers(0, 43_200))
SETTINGS = st.one_of(st.none(), st.builds(Daylight, st.booleans(), st.booleans()))


@st.composite
def walls_and_cron(draw) -> tuple[str, str]:
    """Return a phrase and a cron expression that mean the same."""
    hour, minute, second = draw(st.integers(0, 3)), draw(st.integers(0, 59)), draw(st.integers(0, 59))
    weekday = draw(st.sampled_from(WEEKDAYS))
    return draw(
        st.sampled_from(
            [
                (f"day at {hour:02}:{minute:02}:{second:02}", f"{second} {minute} {hour} * * *"),
                (f"{weekday} at {hour:02}:{minute:02}", f"{minute} {hour} * * {weekday[:3]}"),
                (weekday, f"0 0 * * {weekday[:3]}"),
                (f"hour at :{minute:02}", f"{minute} * * * *"),
                (f"hour at {minute:02}:{second:02}", f"{second} {minute} * * * *"),
                (f"minute at :{second:02}", f"{second} * * * * *"),
            ]
        )
    )


@settings(max_examples=500, deadline=None)
@given(walls_and_cron(), st.sampled_from(ZONES), SETTINGS, NEAR)
def test_times_on_the_wall_clock_are_those_of_cron(pair, zone, daylight, start):
    ours, cron = rule(pair[0], zone, daylight), CronTrigger(pair[1], zone, daylight)
    found = times(ours, start, 8)

    assert found == times(cron, start, 8)
    assert ours.daylight == cron.daylight
    assert (ours.rhythm is None) == (cron.rhythm is None)
    assert [ours.reasons(at) for at in found] == [cron.reasons(at) for at in found]
    assert ours.count(start, found[-1]) == cron.count(start, found[-1]) == 8


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 9), DAY_TIMES, st.sampled_from([ROME, KOLKATA, "UTC", "America/St_Johns"]), NEAR)
def test_each_nth_day_is_one_of_the_days_of_cron(number, time, zone, start):
    parts = [int(part) for part in f"{time}:00".split(":")[:3]]
    daily = times(CronTrigger("{2} {1} {0} * * *".format(*parts), zone), start, 40)

    def local_day(at: datetime) -> int:
        return at.astimezone(ZoneInfo(zone)).toordinal() - datetime(1970, 1, 1).toordinal()

    expected = [at for at in daily if local_day(at) % number == 0]
    assert times(rule(f"{number} days at {time}", zone), start, len(expected)) == expected


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 9), st.sampled_from(["hours", "minutes"]), st.integers(0, 59), st.sampled_from(ZONES), NEAR)
def test_elapsed_units_are_the_first_fitting_second_of_each(number, unit, at, zone, start):
    """A walk over every second, or minute, of some steps."""
    fine = 60 if unit == "hours" else 1
    step = number * UNITS[unit]
    first = int(start.timestamp()) // step * step

    def fits(second: int) -> bool:
        clock = datetime.fromtimestamp(second, ZoneInfo(zone))
        return (clock.minute, clock.second) == (at, 0) if unit == "hours" else clock.second == at

    expected = [
        next(each for each in range(begin, begin + step, fine) if fits(each))
        for begin in range(first, first + 3 * step, step)
    ]
    found = times(rule(f"{number} {unit} at :{at:02}", zone), datetime.fromtimestamp(first, UTC) - MICROSECOND, 3)
    assert [at.timestamp() for at in found] == expected


# Properties of all.

PHRASES = st.one_of(WALL_PHRASES, STEPPED_PHRASES, RANDOM_PHRASES, PLAIN_PHRASES).map(lambda phrase: phrase.text)
INSTANTS = st.one_of(NEAR, st.datetimes(datetime(1902, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))


@settings(max_examples=500, deadline=None)
@given(PHRASES, st.sampled_from(ZONES), SETTINGS, INSTANTS)
def test_the_next_time_is_strictly_later_and_the_first(text, zone, daylight, instant):
    trigger = rule(text, zone, daylight)
    found = trigger.next_after(instant)

    assert found > instant
    assert trigger.next_after(found - MICROSECOND) == found
    assert trigger.next_after(instant + (found - instant) // 2) == found
    assert trigger.next_after(found) > found
    assert found.tzinfo is UTC


@settings(max_examples=300, deadline=None)
@given(PHRASES, st.sampled_from(ZONES), SETTINGS, INSTANTS, st.floats(0, 10))
def test_times_do_not_go_back_when_the_instant_advances(text, zone, daylight, instant, steps):
    trigger = rule(text, zone, daylight)
    gap = trigger.next_after(trigger.next_after(instant)) - instant

    assert trigger.next_after(instant) <= trigger.next_after(instant + gap * steps)


@settings(max_examples=300, deadline=None)
@given(PHRASES, st.sampled_from(ZONES), SETTINGS, INSTANTS, st.integers(1, 12))
def test_the_count_is_that_of_a_walk(text, zone, daylight, instant, number):
    trigger = rule(text, zone, daylight)
    last = times(trigger, instant, number)[-1]

    assert trigger.count(instant, last) == number
    assert trigger.count(instant, last - MICROSECOND) == number - 1
    assert trigger.count(last, instant) == 0


@given(PHRASES, st.sampled_from(ZONES))
def test_the_same_phrase_is_the_same_rule(text, zone):
    assert rule(text, zone) == rule(f"every {text}", zone)
    assert hash(rule(text, zone)) == hash(rule(text, zone))


@given(st.one_of(RANDOM_PHRASES, STEPPED_PHRASES.filter(lambda phrase: phrase.unit != "days")))
def test_what_follows_elapsed_time_is_its_own_rhythm(phrase):
    trigger = rule(phrase.text, ROME)

    assert trigger.rhythm is trigger


@pytest.mark.parametrize("text", ["day at 03:00", "2 hours at :15", "5 to 10 minutes"])
@pytest.mark.parametrize("instant", [utc("0001-01-01"), utc("9999-12-31T23:59:59.999999")])
def test_the_ends_of_the_calendar_have_no_next_time(text, instant):
    assert rule(text).next_after(instant) is None


# Random gaps.


def test_random_times_are_the_same_on_each_host():
    assert times(rule("5 to 10 minutes", seed="backup"), utc("2026-05-01T00:00"), 3) == [
        utc("2026-05-01T00:00:56.813133"),
        utc("2026-05-01T00:08:30.910585"),
        utc("2026-05-01T00:14:19.388740"),
    ]


def test_random_times_follow_the_job_and_not_the_zone():
    start = utc("2026-05-01T00:00")

    assert rule("5 to 10 minutes", ROME) == rule("5 to 10 minutes", KOLKATA)
    assert times(rule("5 to 10 minutes", seed="a"), start, 5) != times(rule("5 to 10 minutes", seed="b"), start, 5)


def test_equal_bounds_are_a_plain_interval():
    assert rule("5 to 5 minutes") == IntervalTrigger(300.0)


def test_random_gaps_use_their_whole_range_and_have_the_mean():
    found = times(rule("4 to 8 hours"), utc("2026-01-01T00:00"), 2001)
    spans = [(later - earlier) / timedelta(hours=1) for earlier, later in pairwise(found)]

    assert 5.99 < sum(spans) / len(spans) < 6.01
    assert 4 <= min(spans) < 4.2
    assert 7.8 < max(spans) <= 8
    assert rule("4 to 8 hours").count(utc("1971-01-01T00:00"), utc("2071-01-01T00:00")) in range(146_098, 146_102)
