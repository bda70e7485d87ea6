"""S14: who is let in when a door is crowded, and who leaves for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.api.connections import admission
from schedulerd.api.connections.admission import AdmissionDecision, Caller, Rank, RateLimit, decide, verdict_on

STRANGER, KNOWN, OWN = Rank


def callers(count, peer, rank=STRANGER, *, is_idle=True, came=0.0):
    return [Caller(peer, rank, is_idle, came + number) for number in range(count)]


def several(peers, each, rank=STRANGER, *, is_idle=True):
    return [one for peer in range(peers) for one in callers(each, f"peer {peer}", rank, is_idle=is_idle, came=peer)]


def test_s14_a_door_that_is_not_crowded_lets_everybody_in():
    for rank in Rank:
        found = verdict_on(Caller("new", rank), several(5, 10))
        assert (found.is_admitted, found.closes) == (True, None)


def test_s14_a_peer_without_login_has_20_and_its_oldest_idle_one_goes():
    present = callers(20, "a")
    present[0].is_idle = False

    found = verdict_on(Caller("a"), present)

    assert found.closes is present[1]
    assert found.reason == "a has 20 connections without login"
    assert verdict_on(Caller("b"), present).closes is None


def test_s14_a_peer_whose_connections_are_all_busy_gets_no_more():
    assert not verdict_on(Caller("a"), callers(20, "a", is_idle=False)).is_admitted
    assert not verdict_on(Caller("a", KNOWN), callers(64, "a", KNOWN, is_idle=False)).is_admitted
    assert verdict_on(Caller("a", KNOWN), callers(63, "a", KNOWN, is_idle=False)).is_admitted
    assert verdict_on(Caller("uid 0", OWN), callers(199, "uid 0", OWN, is_idle=False)).is_admitted


def test_s14_strangers_take_only_a_part_of_the_places():
    present = several(admission.MOST_STRANGERS // 20, 20, is_idle=False)

    assert verdict_on(Caller("new", KNOWN), present).closes is None
    assert verdict_on(Caller("new", OWN), present).closes is None
    found = verdict_on(Caller("new"), present)
    assert found.is_admitted
    assert found.closes is present[0]  # busy, but of a peer who has many


def test_s14_root_and_the_daemons_user_have_a_reserve():
    present = several(6, 30, KNOWN, is_idle=False)

    assert len(present) == admission.MOST_CONNECTIONS - admission.RESERVED
    assert verdict_on(Caller("uid 0", OWN), present).closes is None
    assert not verdict_on(Caller("peer 1", KNOWN), present).is_admitted
    full = [*present, *callers(20, "uid 0", OWN)]
    assert verdict_on(Caller("uid 0", OWN), full).closes is present[0]


def test_s14_strangers_go_first_idle_ones_before_busy_ones():
    known = several(4, 40, KNOWN)
    busy, idle = callers(10, "b", is_idle=False), callers(10, "c", came=50)

    assert verdict_on(Caller("uid 0", OWN), [*known, *busy, *idle, *callers(20, "uid 0", OWN)]).closes is idle[0]
    assert verdict_on(Caller("new", KNOWN), [*known, *busy, *callers(10, "d", is_idle=False)]).closes is busy[0]


def test_s14_somebody_can_always_come_in_to_log_in():
    present = several(6, 30, KNOWN)

    assert verdict_on(Caller("new"), present).closes is present[0]


def test_s14_without_descriptors_one_leaves_for_each_who_comes():
    strangers = several(2, 3)

    assert verdict_on(Caller("uid 0", OWN), strangers, is_short=True).closes is strangers[0]
    assert not verdict_on(Caller("uid 0", OWN), callers(3, "uid 0", OWN), is_short=True).is_admitted


@pytest.mark.parametrize(
    ("came", "peer", "speaks", "turn"),
    [
        (20.05, "a", True, AdmissionDecision.REFUSE),
        (20.2, "a", True, AdmissionDecision.ADMIT),
        (20.2, "a", False, AdmissionDecision.WAIT),
        (21.1, "a", False, AdmissionDecision.ADMIT),
        (20.05, "b", True, AdmissionDecision.ADMIT),
        (20.05, "b", False, AdmissionDecision.WAIT),
    ],
)
def test_s14_a_stranger_is_heard_before_another_stranger_takes_their_place(came, peer, speaks, turn):
    found = admission.Verdict(True, Caller("a", came=20.0), "crowded")

    assert decide(found, Caller(peer, came=came), has_head=speaks) is turn
    assert decide(found, Caller(peer, KNOWN, came=came), has_head=speaks) is AdmissionDecision.ADMIT


crowds = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(Rank), st.booleans()), min_size=0, max_size=500)


@given(crowds)
def test_s14_whoever_comes_the_bounds_hold_and_nobody_better_leaves(those):
    present: list[Caller] = []
    for number, (peer, rank, is_idle) in enumerate(those):
        comer = Caller(peer if rank is not OWN else "uid 0", rank, is_idle, number)
        found = verdict_on(comer, present)
        if found.closes is not None:
            assert found.closes.rank <= comer.rank or found.closes.is_idle
            present.remove(found.closes)
        if found.is_admitted:
            present.append(comer)
        if rank is OWN and not found.is_admitted:
            assert all(each.rank is OWN for each in present)

    others = [each for each in present if each.rank is not OWN]
    strangers = [each for each in present if each.rank is STRANGER]
    assert len(present) <= admission.MOST_CONNECTIONS
    assert len(others) <= admission.MOST_CONNECTIONS - admission.RESERVED
    assert len(strangers) <= admission.MOST_STRANGERS
    for peer in "abcdefgh":
        assert sum(each.peer == peer for each in strangers) <= admission.MOST_STRANGERS_OF_A_PEER
        assert sum(each.peer == peer for each in others) <= admission.MOST_OF_A_PEER


def test_s14_those_who_stay_strangers_come_at_a_pace():
    pace = RateLimit(a_second=10, at_once=3)

    assert [pace.acquire(100.0) for _ in range(4)] == [True, True, True, False]
    assert [pace.acquire(100.15 + each / 1000) for each in range(2)] == [True, False]
    assert [pace.acquire(200.0) for _ in range(4)] == [True, True, True, False]
