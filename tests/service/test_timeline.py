"""Playing a window: rules, expected durations, overlaps and dependencies, without a daemon."""

from datetime import timedelta

import pytest

from schedulerd.core.models import Origin, Overlap, Pause
from schedulerd.service.timeline import SimulatedJob, load_of, simulate, skips
from tests.support.builders import NOON, a_job

HOUR = timedelta(hours=1)
DAY = 24 * HOUR


def an_actor(job_id, seconds=None, pause=None, **job):
    return SimulatedJob(a_job(job_id, **job), seconds, pause)


def played(*actors, window=DAY, most=1000):
    return simulate(list(actors), NOON, NOON + window, most)


def test_everything_in_the_window_is_played_in_order():
    found = played(an_actor("a", cron="0 * * * *"), an_actor("b", cron="30 13,14 * * *"), window=3 * HOUR)

    assert [(run.job_id, (run.at - NOON) / HOUR) for run in found.runs] == [
        ("a", 0), ("a", 1), ("b", 1.5), ("a", 2), ("b", 2.5),
    ]  # fmt: skip
    assert found.is_whole


def test_a_run_that_takes_longer_than_its_period_skips_what_follows():
    found = played(an_actor("a", 5400, every="1h"), window=4 * HOUR)

    assert [run.skipped is None for run in found.runs] == [True, False, True, False]
    assert skips(found.runs) == {"a": 2}
    assert "overlap" in found.runs[1].skipped


def test_with_queue_what_follows_starts_later():
    found = played(an_actor("a", 5400, every="1h", overlap=Overlap.QUEUE), window=3 * HOUR)

    assert [(run.at - NOON) / HOUR for run in found.runs] == [0, 1.5, 3]


def test_what_counts_from_the_end_takes_its_run_into_account():
    found = played(an_actor("a", 1800, every="1h", after="finish"), window=5 * HOUR)

    assert [(run.at - NOON) / HOUR for run in found.runs] == pytest.approx([1, 2.5, 4])


def test_a_chain_starts_when_what_it_follows_has_ended():
    found = played(
        an_actor("sync", 600, cron="0 13 * * *"),
        an_actor("warm", 60, after={"job": "sync"}),
        an_actor("both", 60, after={"all": ["sync", "warm"]}),
        an_actor("alarm", 60, after={"job": "sync", "when": "failure"}),
    )

    assert [(run.job_id, run.origin, (run.at - NOON).total_seconds() / 60) for run in found.runs] == [
        ("sync", Origin.SCHEDULE, 60), ("warm", Origin.AFTER, 70), ("both", Origin.AFTER, 71),
    ]  # fmt: skip


def test_pauses_and_blackouts_are_skips_with_their_reason():
    found = played(
        an_actor("paused", every="1h", pause=Pause(NOON, "me", None, NOON + 2 * HOUR)),
        an_actor("dark", every="1h", blackout="13:30..14:30"),
        an_actor("off", every="1h", enabled=False),
        window=3 * HOUR,
    )

    reasons = [(run.job_id, run.skipped) for run in found.runs]
    assert reasons == [
        ("paused", "the job is paused"), ("dark", None), ("paused", "the job is paused"), ("dark", None),
        ("paused", None), ("dark", "blackout 13:30..14:30"),
    ]  # fmt: skip


def test_more_than_the_most_is_said_to_be_cut_off():
    found = played(an_actor("a", every="1m"), most=10)

    assert len(found.runs) == 10
    assert not found.is_whole


def test_the_load_is_how_much_runs_at_once():
    found = played(*(an_actor(name, 1800, cron="0 13 * * *") for name in "abc"), an_actor("d", None, cron="15 13 * * *"))
    load = load_of(found.runs, NOON, NOON + DAY, 24)

    assert [part.starts for part in load[:3]] == [0, 4, 0]
    assert [part.peak for part in load[:3]] == [0, 4, 0]
    assert load[1].mean == pytest.approx(1.5)
    assert sum(part.starts for part in load) == 4


def test_ends_come_before_starts_of_the_same_moment():
    found = played(an_actor("a", 3600, cron="0 13 * * *"), an_actor("b", 3600, cron="0 14 * * *"))

    assert max(part.peak for part in load_of(found.runs, NOON, NOON + DAY)) == 1
