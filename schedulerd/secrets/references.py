"""Resolve references to secrets when their values are needed; values are never stored.

`{env: X}` is a variable of the daemon's environment, `{file: P}` is the content of a file without its final newline, and
`{credential: N}` is a systemd credential (systemd.exec(5), LoadCredential=).
"""

from __future__ import annotations

import logging
import os
import shlex
import stat
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..core.errors import SecretError
from ..core.models import Secret
from ..host.files import read_text
from ..host.trust import trusted

log = logging.getLogger(__name__)

SIZE_LIMIT = 1024 * 1024  # bytes

_WARNED: set[str] = set()  # secret files for which a warning about their mode was logged


def resolve(value: str | Secret, also: Collection[int] = ()) -> str:
    """Return plain text unchanged, or the value of a secret.

    Raise SecretError, which names the reference, when the value cannot be read, or when a file can be changed by users
    other than root, the daemon's user and the users `also`.
    """
    return value if isinstance(value, str) else _value_of(value, trusted(also))


def resolve_to_mask(value: str | Secret) -> str:
    """Return the same as `resolve`, without a check of the file's permissions: the value is masked and not used."""
    return value if isinstance(value, str) else _value_of(value, None)


def secrets_in(value: Any) -> Iterator[Secret]:
    """Yield the references in a configuration value at any depth."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from secrets_in(each)


def _value_of(value: Secret, users: Collection[int] | None) -> str:
    if value.source == "env":
        found = os.environ.get(value.name)
        if found is None:
            raise SecretError(f"the secret {value}: the daemon's environment has no variable {value.name}")
        return found
    path = value.name
    if value.source == "credential":
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if folder is None or "/" in value.name:
            raise SecretError(f"the secret {value}: systemd passed no such credential to the daemon (LoadCredential=)")
        path = os.path.join(folder, value.name)
    try:
        text = read_text(path, SIZE_LIMIT, users).removesuffix("\n").removesuffix("\r")
        _warn_about_mode(path)
        return text
    except FileNotFoundError as error:
        raise SecretError(f"the secret {value} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SecretError(f"the secret {value} cannot be read: {error}") from None


def _warn_about_mode(path: str) -> None:
    """Log once for each file that all users can read a secret."""
    if path not in _WARNED and os.stat(path).st_mode & stat.S_IROTH:
        _WARNED.add(path)
        log.warning("the secret %s can be read by all users: chmod o-r %s", path, shlex.quote(path))
