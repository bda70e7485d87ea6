"""`trigger_from`: every trigger by its key, lists of them, and what moves and bounds their times."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.core.errors import TriggerError
from schedulerd.core.models import MICROSECOND
from schedulerd.core.trigger import After, When
from schedulerd.triggers.factory import trigger_from
from schedulerd.triggers.spans import Calendar, Span

ROME = "Europe/Rome"
START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text + "+00:00")


def following(trigger, count, after=START):
    found = []
    while len(found) < count:
        after = trigger.next_after(after)
        found.append(after)
    return found


@pytest.mark.parametrize(
    ("mapping", "kind", "expected"),
    [
        ({"cron": "30 2 * * *"}, "cron", "2026-03-01T01:30"),
        ({"calendar": "Mon *-*-* 08:30"}, "calendar", "2026-03-02T07:30"),
        ({"every": "90m"}, "interval", "2026-03-01T01:30"),
        ({"every": 600}, "interval", "2026-03-01T00:10"),
        ({"every": "monday at 09:30"}, "interval", "2026-03-02T08:30"),
        ({"at": "2026-07-01T12:00:00"}, "date", "2026-07-01T10:00"),
        ({"at": "2026-07-01 12:00+05:00"}, "date", "2026-07-01T07:00"),
        ({"at": ["2026-07-01T12:00", "2026-06-01T12:00"]}, "date", "2026-06-01T10:00"),
        ({"cron": ["0 5 * * *", "0 3 * * sun"]}, "cron", "2026-03-01T02:00"),
        ({"triggers": [{"at": "2026-03-01T02:00"}, {"cron": "0 5 * * *"}]}, "date", "2026-03-01T01:00"),
    ],
)
def test_every_key_makes_its_trigger(mapping, kind, expected):
    trigger = trigger_from(mapping, timezone=ROME)

    assert trigger.kind == kind
    assert trigger.next_after(START) == utc(expected)


@pytest.mark.parametrize(
    ("mapping", "field", "why"),
    [
        ({"cron": 5}, "cron", "a text in quotes"),
        ({"cron": []}, "cron", "an empty list"),
        ({"cron": "* * * * *", "calendar": "daily"}, "calendar", "already has 'cron'"),
        ({"cron": "@reboot"}, "cron", "startup: true"),
        ({"at": "soon"}, "at", "expected a date and time"),
        ({"at": "2026-02-30T00:00"}, "at", "expected a date and time"),
        ({"at": []}, "at", "expected a date and time"),
        ({"at": "2026-03-29T02:30", "dst": {"gap": "skip"}}, "at", "does not exist"),
        ({"startup": "yes"}, "startup", "expected true"),
        ({"after": "sync"}, "after", "expected {job: NAME"),
        ({"after": {"job": "a", "any": ["b"]}}, "after", "expected {job: NAME"),
        ({"after": {"job": "a", "when": "done"}}, "after", "expected when: success or failure or always"),
        ({"after": {"all": []}}, "after", "expected ids of jobs"),
        ({"every": "day at 03:00", "after": "finish"}, "every", "one interval"),
        ({"triggers": [{"every": "1m", "after": "finish"}]}, "every", "cannot be combined"),
        ({"triggers": [{"job": "x"}]}, "triggers", "expected one of cron"),
        ({"triggers": "daily"}, "triggers", "expected a list"),
        ({"cron": "* * * * *", "dst": {"gap": "later"}}, "dst", "expected run or skip"),
        ({"cron": "* * * * *", "dst": "skip"}, "dst", "expected a mapping such as"),
        ({"cron": "* * * * *", "jitter": "some"}, "jitter", "a duration is"),
        ({"cron": "* * * * *", "not_before": "x"}, "not_before", "expected a date and time"),
        (
            {"cron": "* * * * *", "not_before": "2027-01-02", "not_after": "2027-01-01"},
            "not_after",
            "earlier than not_before",
        ),
        ({"cron": "* * * * *", "on_blackout": "wait"}, "on_blackout", "expected skip or defer"),
        ({"cron": "* * * * *", "blackout": "someday"}, "blackout", "someday"),
        ({"cron": "* * * * *", "blackout": {"calendar": "holidays"}}, "blackout", "holidays"),
    ],
)
def test_what_is_not_valid_is_refused_with_its_field(mapping, field, why):
    with pytest.raises(TriggerError, match=why.replace("{", r"\{")) as error:
        trigger_from(mapping, timezone=ROME)

    assert error.value.field == field
    assert error.value.why


def test_an_error_in_a_list_says_which_element_it_is():
    with pytest.raises(TriggerError) as error:
        trigger_from({"triggers": [{"cron": "* * * * *"}, {"cron": ["* * * * *", "x"]}]})

    assert error.value.loc == ("triggers", 1, "cron", 1)


def test_a_time_that_two_triggers_share_is_one_occurrence():
    trigger = trigger_from({"cron": ["0 * * * *", "0 */2 * * *"]})

    assert following(trigger, 3) == [START + HOUR, START + 2 * HOUR, START + 3 * HOUR]
    assert trigger.count(START, START + 4 * HOUR) == 4


def test_startup_and_after_have_no_times_but_events():
    assert trigger_from({"startup": True}).events.at_startup
    assert trigger_from({"startup": False}) is None
    trigger = trigger_from({"after": {"all": ["a", "b"], "when": "always"}})
    assert trigger.events.after == (After(("a", "b"), When.ALWAYS, needs_all=True),)
    assert trigger.next_after(START) is None


def test_every_after_finish_counts_from_the_given_end():
    trigger = trigger_from({"every": "10m", "after": "finish"})

    assert trigger.waits_for_end
    assert trigger.next_after(utc("2026-03-01T00:03:20.5")) == utc("2026-03-01T00:13:20.5")


@pytest.mark.parametrize(
    ("mapping", "after", "expected"),
    [
        ({"cron": "30 2 * * *", "dst": {"gap": "skip"}}, "2026-03-28T12:00", "2026-03-30T00:30"),
        ({"cron": "30 2 * * *", "dst": {"repeat": "both"}}, "2026-10-25T00:30", "2026-10-25T01:30"),
        ({"cron": "30 * * * *", "dst": {"repeat": "once"}}, "2026-10-25T00:30", "2026-10-25T02:30"),
        ({"cron": "30 * * * *", "dst": {"gap": "run"}}, "2026-03-29T00:30", "2026-03-29T01:00"),
        ({"at": "2026-03-29T02:30"}, "2026-03-01T00:00", "2026-03-29T01:00"),
        ({"at": "2026-10-25T02:30"}, "2026-10-01T00:00", "2026-10-25T00:30"),
        ({"at": "2026-10-25T02:30", "dst": {"repeat": "both"}}, "2026-10-25T00:30", "2026-10-25T01:30"),
        ({"calendar": "02:30"}, "2026-03-28T12:00", "2026-03-30T00:30"),
        ({"calendar": "02:30", "dst": {"gap": "run"}}, "2026-03-28T12:00", "2026-03-29T01:00"),
        ({"calendar": "*:30"}, "2026-10-25T00:30", "2026-10-25T01:30"),
        ({"calendar": "02:30"}, "2026-10-25T00:30", "2026-10-26T01:30"),
        ({"every": "day at 02:30"}, "2026-03-28T12:00", "2026-03-29T01:00"),
    ],
)
def test_daylight_saving_is_selectable(mapping, after, expected):
    assert trigger_from(mapping, timezone=ROME).next_after(utc(after)) == utc(expected)


def test_explain_says_which_rule_moved_a_time():
    trigger = trigger_from({"cron": "30 2 * * *"}, timezone=ROME)

    (gap,) = trigger.explain(utc("2026-03-28T12:00"), 1)
    (repeat,) = trigger.explain(utc("2026-10-24T12:00"), 1)
    (plain,) = trigger.explain(utc("2026-05-01T12:00"), 1)
    assert gap.reasons == (
        "02:30:00 does not exist on 2026-03-29: clocks go from 02:00 to 03:00, it runs right after the gap",
    )
    assert repeat.reasons == ("this time occurs twice, this is the first: it is due once",)
    assert plain.reasons == ()
    assert "second pass" in trigger.why_not(utc("2026-10-25T01:30"))
    assert trigger.why_not(utc("2026-10-25T01:31")) is None


def test_bounds_leave_out_what_is_outside():
    trigger = trigger_from(
        {"cron": "0 12 * * *", "not_before": "2026-03-05T12:00", "not_after": "2026-03-06T12:00"}, timezone=ROME
    )

    assert following(trigger, 3) == [utc("2026-03-05T11:00"), utc("2026-03-06T11:00"), None]
    assert trigger.count(START, START + 30 * 24 * HOUR) == 2
    assert "not_before" in trigger.why_not(utc("2026-03-04T11:00"))
    assert "not_after" in trigger.why_not(utc("2026-03-07T11:00"))


@given(st.sampled_from(["*/10 * * * *", "0 3 * * *", "0,1 4 * * *"]), st.integers(1, 7200), st.integers(0, 7200), st.text())
def test_a_delay_keeps_order_identity_and_bounds(expression, jitter, spread, seed):
    plain = trigger_from({"cron": expression}, ROME)
    moved = trigger_from({"cron": expression, "jitter": jitter, "spread": spread}, ROME, seed=seed, host="h/" + seed)
    after, last = START, moved.occurrence_at(START).start_at
    for _ in range(20):
        occurrence = moved.occurrence_after(after)
        assert occurrence.scheduled_at == plain.next_after(after)
        assert occurrence.scheduled_at <= occurrence.start_at
        assert occurrence.start_at <= occurrence.scheduled_at + timedelta(seconds=jitter + spread)
        assert occurrence.start_at < plain.next_after(occurrence.scheduled_at)
        assert moved.next_after(last) == occurrence.start_at
        assert moved.next_after(occurrence.start_at - MICROSECOND) == occurrence.start_at
        after, last = occurrence.scheduled_at, occurrence.start_at


def test_jitter_differs_from_time_to_time_and_is_the_same_on_every_host():
    one, two = (trigger_from({"cron": "0 3 * * *", "jitter": "1h"}, seed="job", host=host) for host in ("a/job", "b/job"))

    starts = following(one, 20)
    assert starts == following(two, 20)
    assert len({(at.minute, at.second) for at in starts}) > 10


def test_spread_is_the_same_every_time_and_differs_from_host_to_host():
    shares = set()
    for host in "abcdefgh":
        starts = following(trigger_from({"cron": "0 3 * * *", "spread": "1h"}, seed="job", host=f"{host}/job"), 5)
        assert len({(at.minute, at.second, at.microsecond) for at in starts}) == 1
        shares.add(starts[0])
    assert len(shares) == 8


def test_a_blackout_skips_or_defers():
    night = {"cron": "0 * * * *", "blackout": "22:00..06:00"}
    skips, defers = trigger_from(night, ROME), trigger_from({**night, "on_blackout": "defer"}, ROME)
    evening = utc("2026-03-02T19:30")  # 20:30 in Rome

    assert following(skips, 2, evening) == [utc("2026-03-02T20:00"), utc("2026-03-03T05:00")]
    assert following(defers, 3, evening) == [utc("2026-03-02T20:00"), utc("2026-03-03T05:00"), utc("2026-03-03T06:00")]
    forbidden = skips.occurrence_after(utc("2026-03-02T20:30"))
    assert forbidden.skipped == "blackout 22:00..06:00"
    moved = defers.occurrence_after(utc("2026-03-02T20:30"))
    assert (moved.scheduled_at, moved.start_at) == (utc("2026-03-02T21:00"), utc("2026-03-03T05:00"))
    assert moved.reasons == ("deferred to the end of blackout 22:00..06:00",)


def test_what_is_deferred_is_found_from_inside_its_blackout():
    trigger = trigger_from({"cron": "0 23 * * fri", "blackout": "fri 22:00..mon 06:00", "on_blackout": "defer"}, "UTC")

    assert trigger.next_after(utc("2026-03-08T12:00")) == utc("2026-03-09T06:00")


@pytest.mark.parametrize(
    ("mapping", "field"),
    [
        ({"cron": "0 3 * * sun", "blackout": "sat..sun"}, "blackout"),
        ({"at": "2027-01-01", "not_after": "2026-01-01"}, "not_after"),
        ({"at": "2026-01-01", "not_before": "2027-01-01"}, "not_before"),
        ({"triggers": [{"startup": False}]}, "triggers"),
        ({"not_before": "2027-01-01"}, "not_before"),
        ({"jitter": "often"}, "jitter"),
        ({"cron": "* * * * *", "jitter": "400d"}, "jitter"),
        ({"at": "9990-01-01"}, "at"),
    ],
)
def test_what_bounds_or_blackouts_leave_nothing_of_is_refused(mapping, field):
    with pytest.raises(TriggerError) as error:
        trigger_from(mapping)

    assert error.value.field == field


@pytest.mark.parametrize(
    "mapping",
    [
        {"every": "1s", "spread": "1h"}, {"every": "1s", "jitter": "30m"}, {"every": "5s", "jitter": "2h"},
        {"every": "1s", "blackout": "2026-01-01..2026-12-31", "on_blackout": "defer"},
        {"every": "1s", "blackout": "2026-01-01..2026-12-31", "jitter": "1h"},
        {"every": "1m", "blackout": [f"2026-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)]},
    ],
)  # fmt: skip
def test_long_blackouts_and_long_delays_are_searched_by_halves(mapping):
    trigger = trigger_from(mapping, seed="job", host="host/job")
    found = trigger.next_after(utc("2026-06-01T00:00"))

    assert found is not None
    settled = trigger.occurrence_after(trigger.settled_by(found))
    assert settled.start_at > found
    assert trigger.next_after(found - MICROSECOND) == found


def test_far_years_are_as_exact_as_near_ones():
    trigger = trigger_from({"cron": "0 * * * *"}, ROME)
    at = utc("2950-05-05T03:00")

    assert trigger.next_after(at - MICROSECOND) == at
    assert trigger.next_after(at) == at + HOUR
    assert trigger_from({"every": "1d", "jitter": "366d"}, seed="x").next_after(utc("9999-12-01T00:00")) is not None


def test_many_triggers_are_counted_without_a_walk_over_years():
    assert (
        trigger_from({"triggers": [{"every": "10s"}, {"startup": True}]}).count(START, START + 3652 * 24 * HOUR)
        == 31_553_280
    )
    assert trigger_from({"every": ["1s", "1m"]}).count(START, START + 3652 * 24 * HOUR) > 3652 * 86_400


def test_the_text_of_a_rule_contains_all_that_decides_its_times():
    texts = {
        trigger_from({"every": "10m", **more}, zone).text
        for more, zone in (
            ({}, ROME), ({"blackout": "sat"}, ROME), ({"blackout": "sat"}, "UTC"), ({"jitter": 5400}, ROME),
            ({"jitter": 5430}, ROME), ({"blackout": "sat", "on_blackout": "defer"}, ROME),
            ({"spread": 1234567.25}, ROME), ({"spread": 1234567.5}, ROME),
        )
    }  # fmt: skip

    assert len(texts) == 8
    assert trigger_from({"every": 1209600.5}).text == "every: 1209600.5s"


def test_a_named_calendar_is_a_blackout():
    holidays = Calendar("holidays", (Span(datetime(2026, 3, 2), datetime(2026, 3, 3), "a feast"),))
    trigger = trigger_from(
        {"cron": "0 12 * * *", "blackout": [{"calendar": "holidays"}]}, ROME, calendars={"holidays": holidays}
    )

    assert following(trigger, 2) == [utc("2026-03-01T11:00"), utc("2026-03-03T11:00")]
    assert "a feast" in trigger.occurrence_after(utc("2026-03-01T12:00")).skipped


def test_equal_mappings_make_equal_triggers():
    mapping = {"cron": "0 3 * * *", "jitter": "5m", "blackout": ["sat..sun"], "not_before": "2027-01-01"}

    assert trigger_from(mapping, ROME, seed="a") == trigger_from(dict(mapping), ROME, seed="a")
    assert trigger_from(mapping, ROME, seed="a") != trigger_from({**mapping, "jitter": "6m"}, ROME, seed="a")
    assert trigger_from(mapping, ROME).text != trigger_from({**mapping, "blackout": ["sat"]}, ROME).text


EVERY_KIND = [
    {"cron": "30 2 * * *"}, {"cron": "*/7 1-3 * * *"}, {"cron": "5 0 12 L * *"}, {"cron": ["0 * * * *", "30 2 * * sun"]},
    {"cron": "30 2 * * *", "dst": {"gap": "skip", "repeat": "both"}}, {"cron": "30 * * * *", "dst": {"repeat": "once"}},
    {"calendar": "Mon..Fri *-*-* 01..03:00/20"}, {"calendar": "*-*~01 02:30"}, {"calendar": "*:0/30:0/0.5"},
    {"every": "90s"}, {"every": "36h"}, {"every": "day at 02:30"}, {"every": "3 days at 02:30"}, {"every": "hour at :15"},
    {"every": "2 hours at :15"}, {"every": "5 to 10 minutes"}, {"at": ["2026-03-29T02:30", "2026-10-25T02:30"]},
    {"triggers": [{"every": "40m"}, {"calendar": "02:30"}, {"at": "2026-10-25T02:30"}]},
    {"cron": "0 * * * *", "jitter": "30m", "spread": "2h"}, {"cron": "*/10 * * * *", "blackout": "02:15..02:45"},
    {"cron": "*/10 * * * *", "blackout": ["sun", "22:00..02:30"], "on_blackout": "defer", "jitter": "1m"},
    {"every": "1h", "not_before": "2026-03-29T02:30", "not_after": "2026-10-25T02:30"},
]  # fmt: skip
NIGHTS = st.sampled_from(
    [utc("2026-03-28T20:00"), utc("2026-10-24T20:00"), utc("2026-04-04T10:00"), utc("2026-10-03T10:00")]
)
INSTANTS = st.tuples(NIGHTS, st.integers(0, 12 * 3600 * 10**6)).map(lambda pair: pair[0] + timedelta(microseconds=pair[1]))
ZONES = st.sampled_from([ROME, "Australia/Lord_Howe", "America/New_York", "UTC"])


@given(st.sampled_from(EVERY_KIND), ZONES, INSTANTS, st.integers(0, 7200))
def test_the_next_time_is_later_monotone_and_idempotent(mapping, zone, instant, later):
    trigger = trigger_from(mapping, zone, seed="job")
    found = trigger.next_after(instant)
    if found is None:
        return
    assert found > instant
    assert found.utcoffset() == timedelta()
    assert trigger.next_after(instant) == found
    assert trigger.next_after(found - MICROSECOND) == found
    after = trigger.next_after(instant + timedelta(seconds=later))
    assert after is None or after >= found
    if instant + timedelta(seconds=later) < found:
        assert after == found


@given(st.sampled_from(EVERY_KIND), ZONES, INSTANTS, st.integers(1, 6 * 3600))
def test_occurrences_are_in_order_counted_exactly_and_each_starts_once(mapping, zone, instant, seconds):
    trigger, end = trigger_from(mapping, zone, seed="job"), instant + timedelta(seconds=seconds)
    walked = []
    found = trigger.occurrence_after(instant)
    while found is not None and found.scheduled_at <= end:
        walked.append(found)
        found = trigger.occurrence_after(found.scheduled_at)

    assert trigger.count(instant, end) == len(walked)
    assert len({each.scheduled_at for each in walked}) == len(walked)
    starts = [each.start_at for each in walked if each.skipped is None]
    assert starts == sorted(starts)
    assert all(each.start_at >= each.scheduled_at for each in walked)
    for first, second in itertools.pairwise(dict.fromkeys(starts)):
        assert trigger.next_after(first) == second
    assert [each.scheduled_at for each in trigger.explain(instant, len(walked))] == [each.scheduled_at for each in walked]


@pytest.mark.parametrize(
    "mapping",
    [
        {"every": "1h", "blackout": "1970-01-01..2025-12-31"},
        {"cron": "0 5 * * *", "not_before": "2026-01-01", "blackout": "2026-01-01..2077-12-31"},
        {"at": "2020-01-01", "not_before": "2019-01-01", "blackout": "sat"},
        {"cron": "0 0 29 2 *", "blackout": ["mon..sat"]},
    ],
)
def test_what_is_due_only_after_a_long_time_is_not_refused(mapping):
    assert trigger_from(mapping) is not None
