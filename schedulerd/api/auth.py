"""Who is calling: the peer's uid and gid on the Unix socket, a bearer token on TCP. Unknown callers are nobody.

Tokens have 256 random bits, are stored as SHA-256 in a file that only the daemon can read, and are shown once.
"""

from __future__ import annotations

import grp
import hashlib
import hmac
import json
import logging
import os
import pwd
import secrets
import threading
from collections import deque
from collections.abc import Iterable

from ..config.config import Peer
from ..core.clock import Clock
from ..core.errors import UnauthenticatedError, UnsafeError
from ..core.models import Actor, Role, to_text
from ..host.files import write_private
from .responses import TooManyFailuresError
from .token_file import kept_in
from .tokens import Token

log = logging.getLogger(__name__)

TOKENS_FILE = "tokens.json"
ADMIN_TOKEN_FILE = "admin.token"  # noqa: S105 - a file's name
PREFIX = "schedulerd_"
PEER_SECONDS = 5.0  # how long a peer's groups are remembered
MOST_REMEMBERED = 1000  # peers
FAILURES, FAILURE_SECONDS = 10, 60.0  # more bad tokens in this time, from one address, are answered with 429
MOST_FAILURES = 200  # in this time, from all addresses


class Tokens:
    """The tokens in `tokens.json` of the state directory; a change of the file is seen at the next request."""

    def __init__(self, state_dir: str, clock: Clock) -> None:
        """Raise UnsafeError when others can read or change the file. Whatever else is wrong stops no job: see `trouble`."""
        self._path = os.path.join(state_dir, TOKENS_FILE)
        self._admin_path = os.path.join(state_dir, ADMIN_TOKEN_FILE)
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
        self._by_digest: dict[bytes, Token] = {}
        self._mistake: str | None = None
        self._is_unsafe = False
        self._was_there = False
        self._look()
        if self._is_unsafe:
            raise UnsafeError(str(self._mistake))

    def actor_of(self, text: str) -> Actor:
        """Return whose token `text` is. Raise UnauthenticatedError when it is nobody's, or has expired.

        Raise UnsafeError as long as the file has a mistake, which is logged when it is new.
        """
        self._look()
        if self._mistake is not None:
            raise UnsafeError(self._mistake)
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        token = self._by_digest.get(digest)
        if token is None or not hmac.compare_digest(token.digest, digest):
            raise UnauthenticatedError("the token is not known")
        if token.expires_at is not None and self._clock.now() >= token.expires_at:
            raise UnauthenticatedError("the token has expired")
        return Actor(f"token:{token.token_id}", token.role)

    def make_first(self) -> str | None:
        """When there is no token at all, make one for an admin; return the 0600 file with its text, else None."""
        if self._by_digest or self._mistake is not None:
            return None
        text = PREFIX + secrets.token_urlsafe(32)
        entry = {
            "id": "admin",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "role": Role.ADMIN.name.lower(),
            "created_at": to_text(self._clock.now()),
            "expires_at": None,
        }
        write_private(self._admin_path, text + "\n")
        write_private(self._path, json.dumps({"tokens": [entry]}, indent=2) + "\n")
        self._read()
        return self._admin_path

    @property
    def trouble(self) -> str | None:
        """Why nobody gets in by a token, in words for everybody; None when the file is as it should be."""
        self._look()
        return f"{TOKENS_FILE} cannot be used, and no token is taken: see the log" if self._mistake is not None else None

    def _look(self) -> None:
        """Read the file when it has changed, and log a mistake that is new."""
        if self._read():
            log.error("%s; no token is taken until that is mended", self._mistake)

    def _read(self) -> bool:
        """Read the file when it has changed; return whether it has another mistake than before."""
        before, mistake, is_unsafe, tokens = self._mistake, None, False, []
        mark: tuple[int, int, int] | None = None
        try:
            found = os.stat(self._path, follow_symlinks=False)
            mark, self._was_there = (found.st_ctime_ns, found.st_size, found.st_ino), True
            if mark == self._seen:
                return False
            tokens = kept_in(self._path)
        except UnsafeError as error:
            mistake, is_unsafe = f"{self._path}: {error}", True
        except ValueError as error:
            mistake = f"{self._path}: {error}"
        except FileNotFoundError:
            mark = None
            if self._was_there:
                mistake = f"{self._path} was removed: put it back, or restart, and a new token of an admin is made"
        except OSError as error:  # it may go by: the next request tries again
            mistake, mark = f"{self._path} cannot be read: {error.strerror or error}", None
        self._by_digest, self._seen = {token.digest: token for token in tokens}, mark
        self._mistake, self._is_unsafe = mistake, is_unsafe
        return mistake is not None and mistake != before


class Peers:
    """Roles on the Unix socket: root and the daemon's user are admins, the socket's group operators, others by table.

    An entry for a user decides; without one, the highest role of the user's groups does.
    """

    def __init__(self, socket_group: str, peers: Iterable[Peer], clock: Clock) -> None:
        self._socket_group = socket_group
        self._peers = tuple(peers)
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int], tuple[float, Actor | None, str]] = {}

    def actor_of(self, uid: int, gid: int) -> Actor:
        """Return who a peer is. Raise UnauthenticatedError when they have no role."""
        actor = self.find(uid, gid)
        if actor is None:
            name = self._known_as(uid, gid)
            if name == str(uid):
                raise UnauthenticatedError(f"uid {uid} has no role here: see api.peers")
            way_out = f"as root: adduser {name} {self._socket_group}, or see api.peers"
            raise UnauthenticatedError(f"{name} (uid {uid}) has no role here: {way_out}")
        return actor

    def find(self, uid: int, gid: int) -> Actor | None:
        """Return who a peer is; None when they have no role."""
        now = self._clock.monotonic()
        with self._lock:
            until, actor, _ = self._known.get((uid, gid), (0.0, None, ""))
            if until <= now:
                actor, name = self._look_up(uid, gid)
                if len(self._known) >= MOST_REMEMBERED:
                    self._known.clear()
                self._known[uid, gid] = (now + PEER_SECONDS, actor, name)
        return actor

    def _known_as(self, uid: int, gid: int) -> str:
        """Return the name that was found of a peer when they were looked up."""
        with self._lock:
            return self._known.get((uid, gid), (0.0, None, str(uid)))[2]

    def _look_up(self, uid: int, gid: int) -> tuple[Actor | None, str]:
        """Return who a peer is, when they have a role, and their name (the uid, when they have no account)."""
        name, groups = _groups_of(uid, gid)
        if uid in (0, os.geteuid()):
            return Actor(f"user:{name}", Role.ADMIN), name
        own = [Role[peer.role.upper()] for peer in self._peers if peer.user in (name, str(uid))]
        by_group = [Role[peer.role.upper()] for peer in self._peers if peer.group in groups]
        if self._socket_group in groups:
            by_group.append(Role.OPERATOR)
        roles = own or by_group  # what is said of a user counts more than what is said of their groups
        return (Actor(f"user:{name}", max(roles)) if roles else None), name


def _groups_of(uid: int, gid: int) -> tuple[str, set[str]]:
    """Return a user's name, and the names and numbers of all groups that the user is in."""
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


class Throttle:
    """Counts failed logins, of each peer and of all, so that guessing is told off; a good token is never asked of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: deque[tuple[float, str]] = deque(maxlen=MOST_FAILURES)  # when and whose, the oldest first

    def failed(self, peer: str) -> None:
        """Count a failure. Raise TooManyFailuresError when there were too many lately; then this one is not counted."""
        now = self._clock.monotonic()
        while self._failures and now - self._failures[0][0] >= FAILURE_SECONDS:
            self._failures.popleft()
        if sum(whose == peer for _, whose in self._failures) >= FAILURES:
            raise TooManyFailuresError("too many failed logins from this address: wait a minute")
        if len(self._failures) >= MOST_FAILURES:
            raise TooManyFailuresError("too many failed logins from all addresses together: wait a minute")
        self._failures.append((now, peer))
