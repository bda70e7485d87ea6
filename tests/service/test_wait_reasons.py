"""What a run that waits is waiting for, as `why` and `next` tell it: the time, the load, the pool, and who holds it."""

from datetime import timedelta

import pytest

from schedulerd.core.concurrency import HostLoad
from schedulerd.core.models import Actor, Overlap, Pause, Role, Status
from tests.support.builders import NOON, a_job
from tests.support.engine import Engine
from tests.support.manual_clock import ManualClock

ADMIN = Actor("me", Role.ADMIN)


@pytest.fixture
def start(store):
    clock = ManualClock(NOON - timedelta(seconds=1))
    return lambda *jobs, **more: Engine(store, clock, jobs, ends_at_once=False, **more)


def trigger(engine, job_id="job"):
    engine.clock.advance(0.001)
    engine.manual_runs.trigger(job_id, ADMIN)
    engine.settle()
    return engine.rows(job_id)[-1].run_id


def end(engine, run_id, status=Status.SUCCESS):
    (job, run) = next(each for each in engine.started if each[1].run_id == run_id)
    engine.finish(job, run, status=status)
    engine.settle()


def waits_for(engine, job_id="job"):
    """Return what `why` says that the newest run of a job waits for: kinds, and who stands in the way."""
    answer = engine.explanations.why(job_id, None)
    assert all(each["text"] in answer["reason"] for each in answer["waits_for"])
    return [(each["kind"], each["name"], each["run_ids"]) for each in answer["waits_for"]]


def test_a_retry_waits_for_its_time_and_is_among_the_coming_ones(start):
    engine = start(a_job(every="1m", retries=1, retry_delay_seconds=90.0))
    engine.advance(1)
    first = engine.started[0][1].run_id
    end(engine, first, Status.FAILED)
    retry = engine.rows("job")[-1].run_id
    answer, coming = engine.explanations.why("job", None), engine.occurrences.next_times("job", 3, None)

    assert answer["waits_for"] == [
        {
            "kind": "time", "text": "the time of its retry, 2026-03-10T12:01:30Z", "run_ids": [], "name": None,
            "until": "2026-03-10T12:01:30Z",
        }
    ]  # fmt: skip
    assert answer["reason"].endswith("it waits for the time of its retry, 2026-03-10T12:01:30Z")
    assert [(each["at"], each["run_id"]) for each in coming["times"]] == [
        ("2026-03-10T12:01:00Z", None),
        ("2026-03-10T12:01:30Z", retry),
        ("2026-03-10T12:02:00Z", None),
    ]
    assert coming["times"][1]["reasons"] == [
        f"attempt 2, after run {first}",
        "it is superseded if the occurrence of 2026-03-10T12:01:00Z starts before",
    ]
    assert [each["run_id"] for each in coming["waiting"]] == [retry]
    assert engine.occurrences.next_times("job", 1, "2026-03-10T12:01:10")["times"][0]["run_id"] == retry


def test_a_retry_of_a_run_by_hand_is_a_coming_time_of_a_job_without_a_trigger(start):
    engine = start(a_job(retries=1))
    end(engine, trigger(engine), Status.FAILED)
    (each,) = engine.occurrences.next_times("job", 3, None)["times"]

    assert (each["run_id"], each["scheduled_at"]) == (engine.rows("job")[-1].run_id, None)


def test_a_run_waits_for_its_pool_and_those_who_hold_it(start):
    jobs = [a_job(name, uses={"db": 1}) for name in "ab"]
    engine = start(*jobs, a_job("large", uses={"db": 2}), a_job("small", uses={"db": 1, "mutex m": 1}), pools={"db": 2})
    a, b, large, _small = (trigger(engine, name) for name in ("a", "b", "large", "small"))
    assert waits_for(engine, "large") == [("pool", "db", [a, b])]
    assert waits_for(engine, "small") == [("pool", "db", [a, b, large])]
    text = engine.explanations.why("large", None)["waits_for"][0]["text"]
    assert text == f"pool db (2 of 2 slots in use, it needs 2), held by runs {a} of a and {b} of b"
    end(engine, a)

    assert waits_for(engine, "small") == [("pool", "db", [b, large])]
    assert f"and reserved for run {large}, which was queued before it" in engine.explanations.why("small", None)["reason"]
    end(engine, b)
    assert waits_for(engine, "large") == []


def test_a_run_waits_for_a_mutex(start):
    engine = start(a_job("a", uses={"mutex m": 1}), a_job("b", uses={"mutex m": 1}))
    a, _b = trigger(engine, "a"), trigger(engine, "b")

    assert waits_for(engine, "b") == [("mutex", "m", [a])]
    assert engine.explanations.why("b", None)["waits_for"][0]["text"] == f"mutex m, held by run {a} of a"


def test_of_many_who_hold_a_pool_a_few_are_named_and_all_are_listed(start):
    engine = start(a_job(uses={"db": 1}, overlap=Overlap.ALLOW), pools={"db": 8})
    runs = [trigger(engine) for _ in range(9)]
    (found,) = engine.explanations.why("job", None)["waits_for"]

    assert found["run_ids"] == runs[:8]
    assert found["text"].endswith(f"{runs[4]} of job and 3 more")


def test_a_run_waits_for_the_one_it_overlaps_with_and_those_before_it(start):
    engine = start(a_job(overlap=Overlap.QUEUE))
    first, second, third = (trigger(engine) for _ in range(3))

    assert waits_for(engine) == [("overlap", None, [first, second])]
    assert (
        f"the end of run {first} of its job; 1 run of the job is queued before it"
        in engine.explanations.why("job", None)["reason"]
    )
    waiting = engine.occurrences.next_times("job", 1, None)["waiting"]
    assert [(each["run_id"], each["waits_for"][0]["run_ids"]) for each in waiting] == [
        (second, [first]),
        (third, [first, second]),
    ]


def test_a_run_that_waits_for_several_things_tells_all_of_them(start):
    job = a_job(every="1h", overlap=Overlap.QUEUE, uses={"db": 1}, only_if={"load1_below": 4.0})
    engine = start(job, a_job("other", uses={"db": 1}), pools={"db": 1})
    other = trigger(engine, "other")
    engine.load = HostLoad(5.0, 0.0)
    engine.advance(1)
    engine.pauses.set("job", Pause(NOON, "me", "holidays")).result(10)

    assert waits_for(engine) == [("pause", None, []), ("load", None, []), ("pool", "db", [other])]
    reason = engine.explanations.why("job", None)["reason"]
    assert "it waits for its job to be resumed (paused: holidays)" in reason
    assert "it waits for the host (the load was 5, not below 4), until 2026-03-10T13:00:00" in reason


def test_of_many_runs_of_a_job_that_wait_the_first_are_told_and_the_others_counted(start):
    engine = start(a_job(overlap=Overlap.QUEUE))
    runs = [trigger(engine) for _ in range(13)]
    answer = engine.occurrences.next_times("job", 1, None)

    assert [each["run_id"] for each in answer["waiting"]] == runs[1:11]
    assert "2 more runs are queued" in answer["notes"]


def test_what_is_over_or_runs_waits_for_nothing(start):
    engine = start(a_job(overlap=Overlap.QUEUE))
    run = trigger(engine)
    assert waits_for(engine) == []
    end(engine, run)

    assert waits_for(engine) == []
    assert engine.occurrences.next_times("job", 3, None)["waiting"] == []
