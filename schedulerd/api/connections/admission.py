"""Decides which connections a listener admits when there are many, and which ones are closed for them. Pure.

A stranger is a connection whose caller is not known. Strangers may use only a part of the connections, and few for each
peer. They are closed first. An idle connection is closed before a busy one, a connection of the peer with the most
connections before one of another peer, and the oldest one first. Therefore, a caller that authenticates at once is served,
however many connections others hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, IntEnum

MOST_CONNECTIONS = 200  # of one listener
RESERVED = 20  # of these, for root and the daemon's user
MOST_STRANGERS = 120
FEWEST_STRANGERS = 20  # for these, idle connections of others are closed: a caller must be admitted before it can log in
MOST_OF_A_PEER = 64
MOST_STRANGERS_OF_A_PEER = 20
FEWEST = MOST_STRANGERS_OF_A_PEER  # connections; no limit applies below this number
HEARD_SECONDS = 0.1  # age at which another stranger of the same peer that has sent a head may replace a stranger
SILENT_SECONDS = 1.0  # ... at which any stranger that has not sent a head may


class Rank(IntEnum):
    """The degree to which the caller of a connection is known. A higher rank takes precedence."""

    STRANGER = 0  # not known, or without a role
    KNOWN = 1  # a user with a role, or a token was accepted on this connection
    OWN = 2  # root or the daemon's user, according to the kernel


@dataclass(slots=True, eq=False)
class Caller:
    """The properties of a connection that decide on its admission."""

    peer: str  # to whose limit it counts; "" for none (a proxy between two requests)
    rank: Rank = Rank.STRANGER
    is_idle: bool = True  # it has no request in progress, or does not read its response
    came: float = 0.0  # time of its arrival, in seconds of the loop's clock
    is_final: bool = False  # the rank cannot rise: the kernel has identified a user without a role


class RateLimit:
    """A token bucket: a rate of events per second, and the size of a burst."""

    def __init__(self, a_second: float, at_once: float) -> None:
        self._a_second, self._at_once = a_second, at_once
        self._left, self._at = at_once, 0.0

    def acquire(self, now: float) -> bool:
        """Return whether one more event is within the limit, and count it; `now` is in monotonic seconds."""
        self._left = min(self._at_once, self._left + (now - self._at) * self._a_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class AdmissionDecision(Enum):
    """The decision on a new connection."""

    ADMIT = "admitted through the listener"
    ADMIT_ASIDE = "admitted, and the listener accepts the next one in the same turn of the loop"
    REFUSE = "closed"
    WAIT = "kept aside until it has sent a head"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a connection is admitted, which one is closed for it, and the reason why one is closed or refused."""

    is_admitted: bool
    closes: Caller | None = None
    reason: str = ""


ADMITTED = Verdict(True)


def verdict_on(comer: Caller, present: Collection[Caller], *, is_short: bool = False) -> Verdict:
    """Return whether the new connection `comer` is admitted beside those that are `present`.

    `is_short` means that no descriptor is left for another connection, so that one must be closed.
    """
    if len(present) < FEWEST and not is_short:
        return ADMITTED
    of_peer = peer_verdict_on(comer, present)
    if of_peer is not ADMITTED:
        return of_peer
    strangers = sum(each.rank is Rank.STRANGER for each in present)
    if not is_short and _has_room(comer, present, strangers):
        return ADMITTED
    reason = "no descriptor is left for another connection" if is_short else f"{len(present)} connections are open"
    shares = Counter(each.peer for each in present)
    is_room_due = strangers < FEWEST_STRANGERS
    closable = [each for each in present if _yields(each, comer, shares, is_room_due=is_room_due)]
    if not closable:
        return Verdict(False, reason=reason)
    first = min(closable, key=lambda each: (each.rank, not each.is_idle, -shares[each.peer], each.came))
    return Verdict(True, first, reason)


def decide(found: Verdict, comer: Caller, *, has_head: bool) -> AdmissionDecision:
    """Return the decision on a new connection. Strangers replace strangers no faster than these can be served."""
    closes = found.closes
    if not found.is_admitted or closes is None or {comer.rank, closes.rank} != {Rank.STRANGER}:
        return AdmissionDecision.ADMIT if found.is_admitted else AdmissionDecision.REFUSE
    age = comer.came - closes.came
    if not has_head:
        return AdmissionDecision.ADMIT if age >= SILENT_SECONDS else AdmissionDecision.WAIT
    return AdmissionDecision.ADMIT if age >= HEARD_SECONDS or closes.peer != comer.peer else AdmissionDecision.REFUSE


def peer_verdict_on(comer: Caller, present: Collection[Caller]) -> Verdict:
    """Return whether the limit of its peer admits `comer`. At the limit, the oldest idle one of the peer is closed."""
    if comer.rank is Rank.OWN or not comer.peer:
        return ADMITTED
    same = [each for each in present if each.peer == comer.peer and each is not comer]
    new = [each for each in same if each.rank is Rank.STRANGER]
    if comer.rank is Rank.STRANGER and len(new) >= MOST_STRANGERS_OF_A_PEER:
        held = new
    elif len(same) >= MOST_OF_A_PEER:
        held = same
    else:
        return ADMITTED
    reason = f"{comer.peer} has {len(held)} connections{' without login' if held is new else ''}"
    idle = [each for each in held if each.is_idle]
    if not idle:
        return Verdict(False, reason=reason)
    return Verdict(True, min(idle, key=lambda each: (each.rank, each.came)), reason)


def _has_room(comer: Caller, present: Collection[Caller], strangers: int) -> bool:
    if len(present) >= MOST_CONNECTIONS:
        return False
    if comer.rank is Rank.OWN:
        return True
    own = sum(each.rank is Rank.OWN for each in present)
    is_reserve_left = len(present) - own < MOST_CONNECTIONS - RESERVED
    return is_reserve_left and (comer.rank is Rank.KNOWN or strangers < MOST_STRANGERS)


def _yields(each: Caller, comer: Caller, shares: Counter[str], *, is_room_due: bool) -> bool:
    """Return whether a connection may be closed for `comer`: one of lower rank, or of equal rank and a larger share."""
    if each.rank < comer.rank:
        return True
    if each.rank is Rank.OWN or (each.rank > comer.rank and not is_room_due):
        return False
    if each.is_idle:
        return shares[each.peer] >= shares[comer.peer]
    return each.rank is comer.rank and shares[each.peer] > shares[comer.peer] + 1
