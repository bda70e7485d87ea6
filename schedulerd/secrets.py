"""Resolve references to secrets, late: at the moment when the value is needed, and nowhere is it kept.

`{env: X}` is a variable of the daemon's environment, `{file: P}` a file's content without the last newline,
`{credential: N}` a systemd credential (systemd.exec(5), LoadCredential=).
"""

from __future__ import annotations

import os
import re

from .errors import SecretError
from .model import Secret

_USERINFO = re.compile(r"(?<=://)[^/@\s]*@|(?<=password=)[^&\s]+")


def resolve(value: str | Secret) -> str:
    """Return a text as it is, a secret's value. Raise SecretError, which names the reference, when it leads nowhere."""
    if isinstance(value, str):
        return value
    if value.source == "env":
        found = os.environ.get(value.name)
        if found is None:
            raise SecretError(f"the secret {value}: the daemon's environment has no {value.name}")
        return found
    path = value.name
    if value.source == "credential":
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if folder is None or "/" in value.name:
            raise SecretError(f"the secret {value}: systemd gave the daemon no such credential (LoadCredential=)")
        path = os.path.join(folder, value.name)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"the secret {value} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def scrubbed(text: str, url: str) -> str:
    """Return `text`, which somebody else's code wrote about `url`, without what is secret in it.

    A driver may quote any piece of a URL that it could not read, so every piece of what stands before the last `@` goes.
    """
    userinfo = url.partition("://")[2].rpartition("@")[0] or url.partition("://")[2]
    for piece in sorted(filter(None, re.split(r"[:/?#@&=\s]", userinfo)), key=len, reverse=True):
        if len(piece) > 2:
            text = text.replace(piece, "***")
    return masked(text)


def masked(text: str) -> str:
    """Return `text` without the user and password of any URL in it."""
    return _USERINFO.sub("***@" if "://" in text else "***", text)
