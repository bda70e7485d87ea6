"""Who may run at once: overlaps, pools, mutexes, priorities, and the host's load."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.config.policy_reader import limits_of, uses_of
from schedulerd.core.concurrency import (
    MOST_QUEUED,
    Admission,
    HostLoad,
    Waiting,
    admit,
    format_pool_wait,
    full_pools,
    max_running,
    select_runs,
    unmet_condition,
)
from schedulerd.core.models import Overlap
from schedulerd.host.load import measure
from tests.support.builders import a_job

POOLS = {"a": 1, "b": 3, "c": 10}


@pytest.mark.parametrize(
    ("overlap", "running", "queued", "expected"),
    [
        (Overlap.SKIP, 0, 0, Admission.START),
        (Overlap.SKIP, 1, 0, Admission.SKIP),
        (Overlap.ALLOW, 5, 0, Admission.START),
        (Overlap.QUEUE, 0, 0, Admission.START),
        (Overlap.QUEUE, 1, 0, Admission.QUEUE),
        (Overlap.QUEUE, 0, 1, Admission.QUEUE),
        (Overlap.QUEUE, 1, MOST_QUEUED, Admission.SKIP),
    ],
)
def test_the_overlap_policy_admits_queues_or_skips(overlap, running, queued, expected):
    assert admit(overlap, running, queued) is expected


@pytest.mark.parametrize(
    ("overlap", "running", "queued", "most", "expected"),
    [
        (Overlap.ALLOW, 1, 0, 2, Admission.START),
        (Overlap.ALLOW, 1, 1, 2, Admission.SKIP),
        (Overlap.ALLOW, 2, 0, 2, Admission.SKIP),
        (Overlap.ALLOW, 0, MOST_QUEUED, None, Admission.SKIP),
        (Overlap.QUEUE, 1, 0, 2, Admission.START),
        (Overlap.QUEUE, 2, 0, 2, Admission.QUEUE),
        (Overlap.QUEUE, 1, 1, 2, Admission.QUEUE),
        (Overlap.REPLACE, 0, 0, None, Admission.START),
        (Overlap.REPLACE, 1, 0, None, Admission.REPLACE),
        (Overlap.REPLACE, 0, 1, None, Admission.REPLACE),
    ],
)
def test_the_number_of_instances_is_bounded_and_a_newer_run_may_replace(overlap, running, queued, most, expected):
    assert admit(overlap, running, queued, most) is expected


@pytest.mark.parametrize(
    ("overlap", "most", "expected"),
    [
        (Overlap.SKIP, 5, 1), (Overlap.REPLACE, 5, 1), (Overlap.QUEUE, None, 1), (Overlap.QUEUE, 5, 5),
        (Overlap.ALLOW, None, None), (Overlap.ALLOW, 5, 5),
    ],
)  # fmt: skip
def test_overlap_and_max_instances_limit_concurrent_runs(overlap, most, expected):
    assert max_running(a_job(overlap=overlap, max_instances=most)) == expected


def names(choice):
    return [each.run_id for each in choice.started]


def a_waiting(run_id, priority=0, **uses):
    return Waiting(run_id, run_id[0], uses, priority)


def test_the_higher_priority_goes_first_then_the_older_run():
    waiting = [a_waiting("x", b=1), a_waiting("y", 5, b=1), a_waiting("z", b=1)]

    assert names(select_runs(waiting, {}, {"b": 1}, POOLS)) == ["y", "x"]


def test_small_runs_do_not_overtake_a_large_one_that_is_next():
    waiting = [a_waiting("big", b=3), a_waiting("small", b=1), a_waiting("other", c=1)]

    assert names(select_runs(waiting, {}, {"b": 1}, POOLS)) == ["other"]
    assert names(select_runs(waiting, {}, {}, POOLS)) == ["big", "other"]


def test_a_more_important_one_does_overtake():
    assert names(select_runs([a_waiting("big", b=3), a_waiting("small", 1, b=1)], {}, {"b": 1}, POOLS)) == ["small"]


def test_later_runs_pass_one_that_waits_in_another_pool():
    waiting = [a_waiting("both", a=1, b=3), a_waiting("x", b=1), a_waiting("y", a=1), a_waiting("z", b=2, c=1)]

    assert names(select_runs(waiting, {}, {"a": 1}, POOLS)) == ["x", "z"]


def test_slots_are_reserved_for_a_run_that_missed_those_that_it_lacks():
    missed = Waiting("both", "both", {"a": 1, "b": 2}, had=frozenset("a"))
    waiting = [missed, a_waiting("y", b=1), a_waiting("x", b=2), a_waiting("z", a=1)]
    choice = select_runs(waiting, {}, {"a": 1}, POOLS)

    assert names(choice) == ["y"]  # the third seat of b is nobody's
    assert choice.had["both"] == frozenset("ab")


def test_a_full_pool_does_not_delay_runs_of_other_pools():
    waiting = [a_waiting("x", a=1), a_waiting("y"), a_waiting("z", c=2)]

    assert names(select_runs(waiting, {}, {"a": 1}, POOLS)) == ["y", "z"]


def test_a_job_without_room_blocks_no_other():
    waiting = [a_waiting("j1", a=1), a_waiting("j2", b=1), a_waiting("k", a=1)]

    assert names(select_runs(waiting, {"j": 0}, {}, POOLS)) == ["k"]
    assert names(select_runs(waiting, {"j": 1}, {}, POOLS)) == ["j1"]


RUNS = st.lists(
    st.builds(
        lambda job, uses, priority: (job, uses, priority),
        st.sampled_from("jkl"),
        st.dictionaries(st.sampled_from("abc"), st.integers(1, 3), max_size=3),
        st.integers(-2, 2),
    ),
    max_size=15,
)
TAKEN = st.fixed_dictionaries({name: st.integers(0, limit + 2) for name, limit in POOLS.items()})
ROOM = st.fixed_dictionaries({}, optional={job: st.none() | st.integers(0, 3) for job in "jkl"})


@given(runs=RUNS, taken=TAKEN, room=ROOM)
def test_no_pool_and_no_job_ever_has_more_than_it_may_and_nothing_waits_without_a_reason(runs, taken, room):
    waiting = [Waiting(str(place), job, uses, priority) for place, (job, uses, priority) in enumerate(runs)]
    chosen = select_runs(waiting, room, taken, POOLS).started
    full = dict(taken)
    for each in chosen:
        for name, weight in each.uses.items():
            full[name] += weight
    rooms = {job: room.get(job) for job in "jkl"}

    assert len({each.run_id for each in chosen}) == len(chosen)
    assert all(full[name] <= max(limit, taken[name]) for name, limit in POOLS.items())
    for job, limit in rooms.items():
        assert limit is None or sum(each.job_id == job for each in chosen) <= limit
    for left in (each for each in waiting if each not in chosen):
        has_room = rooms[left.job_id] is None or sum(each.job_id == left.job_id for each in chosen) < rooms[left.job_id]
        before = [one for one in waiting if one.priority >= left.priority and one not in chosen and one is not left]
        held = {name for one in before for name in full_pools(one.uses, full, POOLS)}
        assert not has_room or full_pools(left.uses, full, POOLS) or held & set(left.uses)


@given(runs=RUNS, taken=TAKEN)
def test_no_run_starts_before_an_older_one_that_lacks_a_shared_pool(runs, taken):
    waiting = [Waiting(str(place), f"job{place}", uses, priority) for place, (_, uses, priority) in enumerate(runs)]
    chosen = select_runs(waiting, {}, taken, POOLS).started
    for place, older in enumerate(waiting):
        for newer in waiting[place + 1 :]:
            if older not in chosen and newer.priority <= older.priority:
                assert newer not in chosen or not set(full_pools(older.uses, taken, POOLS)) & set(newer.uses)


@given(
    uses=st.sets(st.sampled_from("abc"), min_size=1),
    weights=st.fixed_dictionaries({name: st.integers(1, limit) for name, limit in POOLS.items()}),
    small=st.lists(st.dictionaries(st.sampled_from("abc"), st.just(1), min_size=1), min_size=1, max_size=6),
    ends=st.randoms(use_true_random=False),
)
def test_a_large_run_starts_although_small_ones_follow_it(uses, weights, small, ends):
    large = Waiting("large", "large", {name: weights[name] for name in uses})
    running, queue, number = [], [], 0

    def come():
        nonlocal number
        for each in small:
            number += 1
            queue.append(Waiting(str(number), str(number), each))

    def look():
        taken = Counter()
        for each in running:
            taken.update(each.uses)
        choice = select_runs(queue, {}, taken, POOLS)
        running.extend(choice.started)
        queue[:] = [replace(each, had=choice.had.get(each.run_id, each.had)) for each in queue if each not in choice.started]

    for _ in range(20):  # everything is full, and much waits already
        come()
    look()
    queue[:] = [large, *queue[:10]]
    for _ in range(300):  # more come than can ever run, and any of those that run may end next, the oldest at last
        come()
        running.remove(running[0] if ends.random() < 0.3 else ends.choice(running))
        look()
        if any(each.run_id == "large" for each in running):
            break

    assert any(each.run_id == "large" for each in running)


@given(uses=st.dictionaries(st.sampled_from("bc"), st.integers(1, 3)), small=st.sampled_from("bc"), looks=st.integers(1, 9))
def test_a_pool_that_never_has_room_does_not_block_others(uses, small, looks):
    stuck = Waiting("stuck", "stuck", {"a": 1, **uses})
    for _ in range(looks):
        later = a_waiting("later", **{small: 1})
        choice = select_runs([stuck, later], {}, {"a": 1}, POOLS)
        assert names(choice) == ["later"]
        stuck = replace(stuck, had=choice.had["stuck"])


def test_the_reason_of_a_waiting_run_is_formatted():
    assert format_pool_wait({"b": 2, "c": 1}, {"b": 2}, POOLS) == "waits for pool b (2 of 3 taken)"
    assert format_pool_wait({"mutex x": 1}, {"mutex x": 1}, {}) == "waits for mutex x"


@pytest.mark.parametrize(
    ("only_if", "load", "words"),
    [
        ({}, HostLoad(99.0, 0.0), None),
        ({"load1_below": 4.0}, HostLoad(3.9, 0.0), None),
        ({"load1_below": 4.0}, HostLoad(4.0, 0.0), "the load was 4, not below 4"),
        ({"free_memory_above": 1024.0**2}, HostLoad(0.0, 1024.0**2), "1 MiB of memory were free, not more than 1"),
        ({"free_memory_above": 1024.0**2, "load1_below": 4.0}, HostLoad(0.0, 2 * 1024.0**2), None),
    ],
)
def test_a_load_gate_is_met_or_gives_the_reason(only_if, load, words):
    assert unmet_condition(only_if, load) == words


def test_the_hosts_load_can_be_measured():
    load = measure()

    assert load.load1 >= 0
    assert load.free_memory_bytes > 0


def test_pools_and_mutexes_become_slots_and_unknown_or_small_pools_are_mistakes():
    found = []
    limits = limits_of({"db": 4, "net": {"limit": 10}})

    def report(path, text):
        found.append((path[1:], text))

    assert limits == {"db": 4, "net": 10}
    assert uses_of({"pool": "db", "uses": {"net": 2}, "mutex": "m"}, limits, ("j",), report) == {
        "net": 2,
        "db": 1,
        "mutex m": 1,
    }
    assert not found
    uses_of({"pool": "dbs", "uses": {"net": 11}, "mutex": ("m", "n")}, limits, ("j",), report)
    assert found == [
        (("uses", "net"), "11 of pool 'net' can never be had: it has 10"),
        (("pool",), "there is no pool 'dbs' (did you mean 'db'?): expected one of db, net"),
    ]
