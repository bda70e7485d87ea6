"""The tokens of the API. They have 256 random bits, are stored as SHA-256, and are shown once."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets

from ..core.clock import Clock
from ..core.errors import UnauthenticatedError, UnsafeError
from ..core.models import Actor, Role, to_text
from ..host.files import write_private
from .token_file import Token, read_tokens

log = logging.getLogger(__name__)

TOKENS_FILE = "tokens.json"
ADMIN_TOKEN_FILE = "admin.token"  # noqa: S105 - a file's name
PREFIX = "schedulerd_"


class Tokens:
    """The tokens in `tokens.json` of the state directory. The next request after a change reads the file again."""

    def __init__(self, state_dir: str, clock: Clock) -> None:
        """Raise UnsafeError when other users can read or change the file. `trouble` reports other errors."""
        self._path = os.path.join(state_dir, TOKENS_FILE)
        self._admin_path = os.path.join(state_dir, ADMIN_TOKEN_FILE)
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
        self._by_digest: dict[bytes, Token] = {}
        self._error: str | None = None
        self._is_unsafe = False
        self._existed = False
        self._refresh()
        if self._is_unsafe:
            raise UnsafeError(str(self._error))

    def actor_of(self, text: str) -> Actor:
        """Return the actor of a token. Raise UnauthenticatedError when it is unknown or has expired.

        Raise UnsafeError while the file has an error.
        """
        self._refresh()
        if self._error is not None:
            raise UnsafeError(self._error)
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        token = self._by_digest.get(digest)
        if token is None or not hmac.compare_digest(token.digest, digest):
            raise UnauthenticatedError("unknown token")
        if token.expires_at is not None and self._clock.now() >= token.expires_at:
            raise UnauthenticatedError("the token has expired")
        return Actor(f"token:{token.token_id}", token.role)

    def create_first(self) -> str | None:
        """Create a token of an admin if there is no token. Return the file with its text (mode 0600), otherwise None."""
        if self._by_digest or self._error is not None:
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
        """Return why no token is accepted, as a message for every caller; None when the file is valid."""
        self._refresh()
        return f"{TOKENS_FILE} cannot be used, no token is accepted: see the log" if self._error is not None else None

    def _refresh(self) -> None:
        """Read the file if it has changed, and log a new error."""
        if self._read():
            log.error("tokens: %s; no token is accepted until this is corrected", self._error)

    def _read(self) -> bool:
        """Read the file if it has changed. Return whether it has a new error."""
        before, problem, is_unsafe, tokens = self._error, None, False, []
        mark: tuple[int, int, int] | None = None
        try:
            found = os.stat(self._path, follow_symlinks=False)
            mark, self._existed = (found.st_ctime_ns, found.st_size, found.st_ino), True
            if mark == self._seen:
                return False
            tokens = read_tokens(self._path)
        except UnsafeError as error:
            problem, is_unsafe = f"{self._path}: {error}", True
        except ValueError as error:
            problem = f"{self._path}: {error}"
        except FileNotFoundError:
            mark = None
            if self._existed:
                problem = f"{self._path} was removed: restore it, or restart the daemon to create a new token of an admin"
        except OSError as error:  # the next request tries again
            problem, mark = f"cannot read {self._path}: {error.strerror or error}", None
        self._by_digest, self._seen = {token.digest: token for token in tokens}, mark
        self._error, self._is_unsafe = problem, is_unsafe
        return problem is not None and problem != before
