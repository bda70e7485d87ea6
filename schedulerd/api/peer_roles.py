"""The roles of users on the Unix socket, by user and by group."""

from __future__ import annotations

import grp
import os
import pwd
import threading
from collections.abc import Iterable

from ..config.config import Peer
from ..core.clock import Clock
from ..core.errors import UnauthenticatedError
from ..core.models import Actor, Role

CACHE_SECONDS = 5.0  # for which the groups of a user are cached
MOST_CACHED = 1000  # users


class PeerRoles:
    """Root and the daemon's user are admins, members of the socket's group operators, others have the roles in `api.peers`.

    A user entry takes precedence over group entries. Among groups, the highest role applies.
    """

    def __init__(self, socket_group: str, peers: Iterable[Peer], clock: Clock) -> None:
        self._socket_group = socket_group
        self._peers = tuple(peers)
        self._clock = clock
        self._lock = threading.Lock()
        self._cache: dict[tuple[int, int], tuple[float, Actor | None, str]] = {}

    def actor_of(self, uid: int, gid: int) -> Actor:
        """Return the actor of a user and group id. Raise UnauthenticatedError when they have no role."""
        actor = self.find(uid, gid)
        if actor is None:
            name = self._cached_name(uid, gid)
            if name == str(uid):
                raise UnauthenticatedError(f"uid {uid} has no role: see api.peers")
            way_out = f"as root, run adduser {name} {self._socket_group}, or see api.peers"
            raise UnauthenticatedError(f"{name} (uid {uid}) has no role: {way_out}")
        return actor

    def find(self, uid: int, gid: int) -> Actor | None:
        """Return the actor of a user and group id, None when they have no role."""
        now = self._clock.monotonic()
        with self._lock:
            until, actor, _ = self._cache.get((uid, gid), (0.0, None, ""))
            if until <= now:
                actor, name = self._look_up(uid, gid)
                if len(self._cache) >= MOST_CACHED:
                    self._cache.clear()
                self._cache[uid, gid] = (now + CACHE_SECONDS, actor, name)
        return actor

    def _cached_name(self, uid: int, gid: int) -> str:
        """Return the cached name of a user, the uid without one."""
        with self._lock:
            return self._cache.get((uid, gid), (0.0, None, str(uid)))[2]

    def _look_up(self, uid: int, gid: int) -> tuple[Actor | None, str]:
        """Return the actor of a user, None without a role, and the name (the uid without an account)."""
        name, groups = _groups_of(uid, gid)
        if uid in (0, os.geteuid()):
            return Actor(f"user:{name}", Role.ADMIN), name
        own = [Role[peer.role.upper()] for peer in self._peers if peer.user in (name, str(uid))]
        by_group = [Role[peer.role.upper()] for peer in self._peers if peer.group in groups]
        if self._socket_group in groups:
            by_group.append(Role.OPERATOR)
        roles = own or by_group  # a user entry takes precedence over group entries
        return (Actor(f"user:{name}", max(roles)) if roles else None), name


def _groups_of(uid: int, gid: int) -> tuple[str, set[str]]:
    """Return the name of a user, and the names and ids of all groups of the user."""
    try:
        name = pwd.getpwuid(uid).pw_name
        numbers = os.getgrouplist(name, gid)
    except (KeyError, OSError):
        name, numbers = str(uid), [gid]
    names = {str(number) for number in numbers}
    for number in numbers:
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return name, names
