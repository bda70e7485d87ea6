"""The two databases give the same answers to the same changes, and hold the same rows afterwards."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedulerd.core.clock import SystemClock
from schedulerd.core.models import ENDED, Origin, Result, Status, finish
from schedulerd.store.changes import ClaimRun, DeleteRuns, FinishRuns, RecordRuns
from schedulerd.store.copy import copy
from schedulerd.store.postgres.store import PostgresStore
from schedulerd.store.sqlite.store import SqliteStore
from tests.support.builders import NOON, a_run

TEXTS = st.text(max_size=8).filter(lambda text: "\0" not in text)
INSTANTS = st.integers(0, 10**13).map(lambda micros: NOON + timedelta(microseconds=micros))


@pytest.fixture(scope="module")
def pair(postgres, tmp_path_factory):
    stores = SqliteStore(str(tmp_path_factory.mktemp("alike") / "h.db"), SystemClock()), PostgresStore(postgres.url, "alike")
    yield stores
    for store in stores:
        store.close()


WHO = {  # what a run is, by its id: some are of the same occurrence, or have the same key
    "019cd790-0": {"job_id": "a", "scheduled_at": NOON}, "019cd791-1": {"job_id": "a", "scheduled_at": NOON},
    "019cd790-2": {"job_id": "b", "scheduled_at": NOON}, "019cd791-3": {"job_id": "a", "scheduled_at": NOON, "attempt": 2},
    "019cd790-4": {"job_id": "a", "scheduled_at": NOON, "attempt": 2}, "019cd791-5": {"job_id": "a", "scheduled_at": None},
    "019cd790-6": {"job_id": "a", "scheduled_at": None, "idempotency_key": "k"},
    "019cd791-7": {"job_id": "a", "scheduled_at": NOON + timedelta(microseconds=1), "idempotency_key": "k"},
    "019cd790-8": {"job_id": "b", "scheduled_at": None, "idempotency_key": "k"},
}  # fmt: skip
IDS = st.sampled_from(sorted(WHO))


@st.composite
def runs(draw):
    """Draw a run, as it may be when it is entered, or ends."""
    run_id, status = draw(IDS), draw(st.sampled_from(sorted(Status)))
    numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    run = a_run(
        run_id=run_id, **WHO[run_id], status=status, origin=draw(st.sampled_from(sorted(Origin))), queued_at=draw(INSTANTS),
        actor=draw(st.none() | TEXTS), started_at=draw(st.none() | INSTANTS),
        details=draw(st.dictionaries(TEXTS, TEXTS | numbers, max_size=2)),
    )  # fmt: skip
    return ended(run, draw(INSTANTS), draw(TEXTS)) if status in ENDED else run


def ended(run, at, message):
    result = Result(run.status if run.status in ENDED else Status.FAILED, 7, message, 3, run.details)
    return finish(run, result, at, (at - NOON).total_seconds() / 3)


@st.composite
def groups(draw):
    """Draw groups of changes, each of which is one transaction."""
    some = st.lists(runs(), min_size=1, max_size=5)
    ends = st.lists(st.builds(ended, runs(), INSTANTS, TEXTS), max_size=4)
    change = st.one_of(
        st.builds(RecordRuns, some), st.builds(RecordRuns, some), st.builds(ClaimRun, IDS),
        st.builds(FinishRuns, ends, some | st.just([])),
        st.builds(DeleteRuns, st.lists(IDS, max_size=3, unique=True)),
    )  # fmt: skip
    return draw(st.lists(st.lists(change, min_size=1, max_size=8), min_size=1, max_size=5))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(drawn=groups())
def test_the_same_changes_have_the_same_answers_and_leave_the_same_rows(pair, drawn):
    sqlite, postgres = pair
    try:
        for group in drawn:
            assert sqlite._database.apply(group) == postgres._database.apply(group)
        assert sqlite.all_runs("", 1000) == postgres.all_runs("", 1000)
        assert sqlite.counts() == postgres.counts()
        for since in (NOON - timedelta(days=9), NOON):
            assert sqlite.counts(since) == postgres.counts(since)
            assert sqlite.lateness(since) == postgres.lateness(since)
    finally:
        clear(pair)


def test_an_end_without_a_row_and_the_row_that_follows_another_end_are_entered_in_their_order(pair):
    first, later = (a_run(run_id=f"019cd790-{number}", scheduled_at=None, idempotency_key="k") for number in (1, 2))
    changes = [FinishRuns((), (first,)), FinishRuns((ended(later, NOON, ""),), ())]
    try:
        for store in pair:
            assert store._database.apply(changes) == [frozenset({first.run_id}), frozenset()]
            assert [run.run_id for run in store.all_runs("", 10)] == [first.run_id]
    finally:
        clear(pair)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_copy_has_the_order_of_the_history_that_it_was_made_of(pair, turn):
    source, target = pair[::turn]
    ahead = timedelta(days=400)
    old = [replace(a_run(f"old{number}", at=NOON + number * ahead), sequence=0) for number in (1, 0)]  # from before
    wrong = [a_run(str(number), at=at) for number, at in enumerate((NOON, NOON + 2 * ahead, NOON - ahead, NOON))]
    try:
        for run in (*old, *wrong):
            source.record([run]).result(10)
        order = [run.job_id for run in source.recent(10)]
        copy(source, target, lambda _copied: None)

        assert order == ["3", "2", "1", "0", "old1", "old0"]
        assert [run.job_id for run in target.recent(10)] == order
        assert [run.sequence for run in target.recent(10)] == [run.sequence for run in source.recent(10)]
        target.record([a_run("last")]).result(10)
        assert target.recent(1)[0].job_id == "last"
    finally:
        clear(pair)


def clear(pair):
    for store in pair:
        rows = store.all_runs("", 1000)
        store.finish([ended(run, NOON, "") for run in rows]).result(10)
        store.delete_runs([run.run_id for run in rows]).result(10)
