"""S14: who is let in when a door is crowded, and who leaves for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.api.connections import admission
from schedulerd.api.connections.admission import Caller, Pace, Standing, Turn, turn_of, verdict

STRANGER, KNOWN, OWN = Standing


def callers(count, peer, standing=STRANGER, *, is_idle=True, came=0.0):
    return [Caller(peer, standing, is_idle, came + number) for number in range(count)]


def several(peers, each, standing=STRANGER, *, is_idle=True):
    return [one for peer in range(peers) for one in callers(each, f"peer {peer}", standing, is_idle=is_idle, came=peer)]


def test_s14_a_door_that_is_not_crowded_lets_everybody_in():
    for standing in Standing:
        found = verdict(Caller("new", standing), several(5, 10))
        assert (found.is_in, found.leaves) == (True, None)


def test_s14_a_peer_without_login_has_20_and_its_oldest_idle_one_goes():
    present = callers(20, "a")
    present[0].is_idle = False

    found = verdict(Caller("a"), present)

    assert found.leaves is present[1]
    assert found.reason == "a has 20 connections without login"
    assert verdict(Caller("b"), present).leaves is None


def test_s14_a_peer_whose_connections_are_all_busy_gets_no_more():
    assert not verdict(Caller("a"), callers(20, "a", is_idle=False)).is_in
    assert not verdict(Caller("a", KNOWN), callers(64, "a", KNOWN, is_idle=False)).is_in
    assert verdict(Caller("a", KNOWN), callers(63, "a", KNOWN, is_idle=False)).is_in
    assert verdict(Caller("uid 0", OWN), callers(199, "uid 0", OWN, is_idle=False)).is_in


def test_s14_strangers_take_only_a_part_of_the_places():
    present = several(admission.MOST_STRANGERS // 20, 20, is_idle=False)

    assert verdict(Caller("new", KNOWN), present).leaves is None
    assert verdict(Caller("new", OWN), present).leaves is None
    found = verdict(Caller("new"), present)
    assert found.is_in
    assert found.leaves is present[0]  # busy, but of a peer who has many


def test_s14_root_and_the_daemons_user_have_a_reserve():
    present = several(6, 30, KNOWN, is_idle=False)

    assert len(present) == admission.MOST_CONNECTIONS - admission.RESERVED
    assert verdict(Caller("uid 0", OWN), present).leaves is None
    assert not verdict(Caller("peer 1", KNOWN), present).is_in
    full = [*present, *callers(20, "uid 0", OWN)]
    assert verdict(Caller("uid 0", OWN), full).leaves is present[0]


def test_s14_strangers_go_first_idle_ones_before_busy_ones():
    known = several(4, 40, KNOWN)
    busy, idle = callers(10, "b", is_idle=False), callers(10, "c", came=50)

    assert verdict(Caller("uid 0", OWN), [*known, *busy, *idle, *callers(20, "uid 0", OWN)]).leaves is idle[0]
    assert verdict(Caller("new", KNOWN), [*known, *busy, *callers(10, "d", is_idle=False)]).leaves is busy[0]


def test_s14_somebody_can_always_come_in_to_log_in():
    present = several(6, 30, KNOWN)

    assert verdict(Caller("new"), present).leaves is present[0]


def test_s14_without_descriptors_one_leaves_for_each_who_comes():
    strangers = several(2, 3)

    assert verdict(Caller("uid 0", OWN), strangers, is_short=True).leaves is strangers[0]
    assert not verdict(Caller("uid 0", OWN), callers(3, "uid 0", OWN), is_short=True).is_in


@pytest.mark.parametrize(
    ("came", "peer", "speaks", "turn"),
    [
        (20.05, "a", True, Turn.OUT),
        (20.2, "a", True, Turn.IN),
        (20.2, "a", False, Turn.WAIT),
        (21.1, "a", False, Turn.IN),
        (20.05, "b", True, Turn.IN),
        (20.05, "b", False, Turn.WAIT),
    ],
)
def test_s14_a_stranger_is_heard_before_another_stranger_takes_their_place(came, peer, speaks, turn):
    found = admission.Verdict(True, Caller("a", came=20.0), "crowded")

    assert turn_of(found, Caller(peer, came=came), speaks=speaks) is turn
    assert turn_of(found, Caller(peer, KNOWN, came=came), speaks=speaks) is Turn.IN


crowds = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(Standing), st.booleans()), min_size=0, max_size=500)


@given(crowds)
def test_s14_whoever_comes_the_bounds_hold_and_nobody_better_leaves(those):
    present: list[Caller] = []
    for number, (peer, standing, is_idle) in enumerate(those):
        comer = Caller(peer if standing is not OWN else "uid 0", standing, is_idle, number)
        found = verdict(comer, present)
        if found.leaves is not None:
            assert found.leaves.standing <= comer.standing or found.leaves.is_idle
            present.remove(found.leaves)
        if found.is_in:
            present.append(comer)
        if standing is OWN and not found.is_in:
            assert all(each.standing is OWN for each in present)

    others = [each for each in present if each.standing is not OWN]
    strangers = [each for each in present if each.standing is STRANGER]
    assert len(present) <= admission.MOST_CONNECTIONS
    assert len(others) <= admission.MOST_CONNECTIONS - admission.RESERVED
    assert len(strangers) <= admission.MOST_STRANGERS
    for peer in "abcdefgh":
        assert sum(each.peer == peer for each in strangers) <= admission.MOST_STRANGERS_OF_A_PEER
        assert sum(each.peer == peer for each in others) <= admission.MOST_OF_A_PEER


def test_s14_those_who_stay_strangers_come_at_a_pace():
    pace = Pace(a_second=10, at_once=3)

    assert [pace.takes(100.0) for _ in range(4)] == [True, True, True, False]
    assert [pace.takes(100.15 + each / 1000) for each in range(2)] == [True, False]
    assert [pace.takes(200.0) for _ in range(4)] == [True, True, True, False]
