"""Which backups stay, whatever the counts, the clock and the luck were."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulerd.backups.retention import KEEP_PERIODS, MOST_SUSPECTS, RetentionItem, expired

START = datetime(2026, 1, 1, 3, tzinfo=UTC)
DAYS = [RetentionItem(f"d{day:03}", day, START + timedelta(days=day)) for day in range(100)]
NAMES = [each.name for each in DAYS]

AT = st.one_of(
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 3, 1), timezones=st.just(UTC)),
    st.datetimes(datetime(2015, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),  # a clock that was wrong by ten years
)
FLAGS = st.tuples(AT, st.booleans(), st.booleans(), st.booleans())
HISTORY = st.lists(FLAGS, min_size=1, max_size=60).map(
    lambda rows: [RetentionItem(f"b{number}", number, *row) for number, row in enumerate(rows)]
)
KEEP = st.dictionaries(st.sampled_from(KEEP_PERIODS), st.integers(0, 5))


def test_without_any_count_every_backup_stays():
    assert expired(DAYS, {}) == []
    assert expired(DAYS, {"daily": 0, "last": 0}) == []


def test_daily_and_weekly_keep_the_newest_of_each_day_and_week():
    gone = expired(DAYS, {"daily": 3, "weekly": 2})

    assert [name for name in NAMES if name not in gone] == ["d094", "d097", "d098", "d099"]  # d094 is a Sunday
    assert gone == sorted(gone)


def test_the_newest_by_a_clock_that_was_wrong_is_not_the_newest():
    future = replace(DAYS[50], made_at=START + timedelta(days=3650))
    gone = expired([*DAYS[:50], future, *DAYS[51:]], {"last": 1})

    assert [name for name in NAMES if name not in gone] == ["d099"]


def test_those_in_doubt_count_for_nothing_and_only_the_newest_of_them_stay():
    bad = [replace(each, is_good=False) for each in DAYS[90:]]
    gone = expired([*DAYS[:90], *bad], {"last": 2})

    assert [name for name in NAMES if name not in gone] == ["d088", "d089", *NAMES[-MOST_SUSPECTS:]]


def test_one_in_doubt_goes_when_there_is_a_newer_good_one():
    assert expired([replace(DAYS[0], is_good=False), DAYS[1], DAYS[2]], {"last": 5}) == ["d000"]


@pytest.mark.slow
@settings(max_examples=1000)
@given(HISTORY, KEEP)
def test_the_last_good_the_last_proven_the_held_and_the_newest_always_stay(history, keep):
    gone = set(expired(history, keep))
    stays = [each for each in history if each.name not in gone]

    def last(those):
        return [each.name for each in those][-1:]

    assert last(each for each in history if each.is_good) == last(each for each in stays if each.is_good)
    assert last(each for each in history if each.is_good and each.is_proven) == last(
        each for each in stays if each.is_good and each.is_proven
    )
    assert not [each for each in history if each.is_held and each.name in gone]
    assert history[-1].name not in gone


@given(HISTORY, KEEP)
def test_what_has_gone_is_not_missed_by_the_next_run(history, keep):
    gone = set(expired(history, keep))

    assert expired([each for each in history if each.name not in gone], keep) == []
