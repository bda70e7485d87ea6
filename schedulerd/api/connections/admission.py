"""Who is let in when a door is crowded, and who leaves for them: values in, a verdict out.

A connection that has shown nothing yet is a stranger's: it may take only a part of the places, and few of them for one peer,
and it leaves first. An idle one leaves before one with a request, one of the peer who has most before one of another, the
oldest first. So whoever comes and says at once who they are is served, however many others hold connections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, IntEnum

MOST_CONNECTIONS = 200  # of one door
RESERVED = 20  # of them for root and the daemon's user
MOST_STRANGERS = 120
FEWEST_STRANGERS = 20  # for whom idle connections of others make room: to log in, one must come in first
MOST_OF_A_PEER = 64
MOST_STRANGERS_OF_A_PEER = 20
FEWEST = MOST_STRANGERS_OF_A_PEER  # connections, with which no bound is reached
HEARD_SECONDS = 0.1  # that a stranger has before one of the same peer who has said something takes their place
SILENT_SECONDS = 1.0  # ... and any stranger who has not


class Standing(IntEnum):
    """What is known of who is at the other end of a connection."""

    STRANGER = 0  # nothing, or that they have no role
    KNOWN = 1  # a user with a role, or a token was accepted on this connection
    OWN = 2  # root or the daemon's user, by the word of the kernel


@dataclass(slots=True, eq=False)
class Caller:
    """A connection, as the others see it."""

    peer: str  # whose limit it counts for; "" for nobody's (a proxy between two requests)
    standing: Standing = Standing.STRANGER
    is_idle: bool = True  # no request of it is under way, or it does not take its answer
    came: float = 0.0  # when, in seconds of the loop's clock
    is_final: bool = False  # a stranger stays one, whatever they say: the kernel has said who they are


class Pace:
    """How fast those may come who stay strangers: so many a second, and some at once."""

    def __init__(self, a_second: float, at_once: float) -> None:
        self._a_second, self._at_once = a_second, at_once
        self._left, self._at = at_once, 0.0

    def takes(self, now: float) -> bool:
        """Return whether one more may come, and count them; `now` is in seconds and never goes back."""
        self._left = min(self._at_once, self._left + (now - self._at) * self._a_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Turn(Enum):
    """What is done with who comes."""

    IN = "let in"
    ASIDE = "let in, and who stands behind is looked at now"
    OUT = "turned away"
    WAIT = "to say something first"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a caller comes in; who goes for that; and in words why somebody is turned away."""

    is_in: bool
    leaves: Caller | None = None
    reason: str = ""


IN = Verdict(True)


def verdict(comer: Caller, present: Collection[Caller], *, is_short: bool = False) -> Verdict:
    """Return whether `comer` is let in beside those who are `present`.

    `is_short` says that there is no descriptor for one more, so that somebody has to leave for them.
    """
    if len(present) < FEWEST and not is_short:
        return IN
    of_peer = peer_verdict(comer, present)
    if of_peer is not IN:
        return of_peer
    strangers = sum(each.standing is Standing.STRANGER for each in present)
    if not is_short and _has_room(comer, present, strangers):
        return IN
    reason = "there is no descriptor for one more" if is_short else f"{len(present)} connections are open"
    shares = Counter(each.peer for each in present)
    makes_room = strangers < FEWEST_STRANGERS
    going = [each for each in present if _gives_way(each, comer, shares, is_room_due=makes_room)]
    if not going:
        return Verdict(False, reason=reason)
    first = min(going, key=lambda each: (each.standing, not each.is_idle, -shares[each.peer], each.came))
    return Verdict(True, first, reason)


def turn_of(found: Verdict, comer: Caller, *, speaks: bool) -> Turn:
    """Return what is done with a comer; strangers take the places of strangers at a pace at which these can be heard."""
    leaves = found.leaves
    if not found.is_in or leaves is None or {comer.standing, leaves.standing} != {Standing.STRANGER}:
        return Turn.IN if found.is_in else Turn.OUT
    age = comer.came - leaves.came
    if not speaks:
        return Turn.IN if age >= SILENT_SECONDS else Turn.WAIT
    return Turn.IN if age >= HEARD_SECONDS or leaves.peer != comer.peer else Turn.OUT


def peer_verdict(comer: Caller, present: Collection[Caller]) -> Verdict:
    """Return whether the limit of the comer's own peer lets them in; at the limit, the oldest idle one of theirs leaves."""
    if comer.standing is Standing.OWN or not comer.peer:
        return IN
    same = [each for each in present if each.peer == comer.peer and each is not comer]
    new = [each for each in same if each.standing is Standing.STRANGER]
    if comer.standing is Standing.STRANGER and len(new) >= MOST_STRANGERS_OF_A_PEER:
        held = new
    elif len(same) >= MOST_OF_A_PEER:
        held = same
    else:
        return IN
    reason = f"{comer.peer} has {len(held)} connections{' without login' if held is new else ''}"
    idle = [each for each in held if each.is_idle]
    if not idle:
        return Verdict(False, reason=reason)
    return Verdict(True, min(idle, key=lambda each: (each.standing, each.came)), reason)


def _has_room(comer: Caller, present: Collection[Caller], strangers: int) -> bool:
    if len(present) >= MOST_CONNECTIONS:
        return False
    if comer.standing is Standing.OWN:
        return True
    own = sum(each.standing is Standing.OWN for each in present)
    is_reserve_left = len(present) - own < MOST_CONNECTIONS - RESERVED
    return is_reserve_left and (comer.standing is Standing.KNOWN or strangers < MOST_STRANGERS)


def _gives_way(each: Caller, comer: Caller, shares: Counter[str], *, is_room_due: bool) -> bool:
    """Return whether one who is here leaves for a comer: a lesser one does, and an equal one of a peer with more."""
    if each.standing < comer.standing:
        return True
    if each.standing is Standing.OWN or (each.standing > comer.standing and not is_room_due):
        return False
    if each.is_idle:
        return shares[each.peer] >= shares[comer.peer]
    return each.standing is comer.standing and shares[each.peer] > shares[comer.peer] + 1
