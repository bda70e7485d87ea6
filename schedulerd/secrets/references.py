"""Resolve references to secrets, late: at the moment when the value is needed, and nowhere is it kept.

`{env: X}` is a variable of the daemon's environment, `{file: P}` a file's content without the last newline,
`{credential: N}` a systemd credential (systemd.exec(5), LoadCredential=).
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from ..core.errors import SecretError, StartError
from ..core.models import Job, Secret
from ..host.files import read_text
from ..host.trust import trusted
from .env_files import variables_in
from .forms import SHORTEST_MASKED_OF_FILE, as_bytes, forms_of

log = logging.getLogger(__name__)

SIZE_LIMIT = 1024 * 1024  # bytes
_PASSWORD = re.compile(r"://[^/@\s]*?:([^/\s]*)@|\bpassword=([^&\s]+)")
_HOST_PORT = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}(?=/|$)")
_USERINFO = re.compile(r"(?<=://)[^/@\s]*@|(?<=password=)[^&\s]+")

_WARNED: set[str] = set()  # files with secrets that all users may read, as has been said


def resolve(value: str | Secret, also: Collection[int] = ()) -> str:
    """Return a text as it is, a secret's value. Raise SecretError, which names the reference, when it leads nowhere.

    A file with a secret must be trusted: nobody but root, the daemon's user and the users `also` may be able to change it.
    """
    return value if isinstance(value, str) else _value_of(value, trusted(also))


def resolve_to_mask(value: str | Secret) -> str:
    """Return what `resolve` does, whoever may change a file: it is only hidden, and nothing is done with it."""
    return value if isinstance(value, str) else _value_of(value, None)


def _value_of(value: Secret, users: Collection[int] | None) -> str:
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
        text = read_text(path, SIZE_LIMIT, users).removesuffix("\n").removesuffix("\r")
        _warn_of_readers(path)
        return text
    except FileNotFoundError as error:
        raise SecretError(f"the secret {value} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SecretError(f"the secret {value} cannot be read: {error}") from None


def _warn_of_readers(path: str) -> None:
    """Log, once for each file, that all users may read a secret."""
    if path not in _WARNED and os.stat(path).st_mode & stat.S_IROTH:
        _WARNED.add(path)
        log.warning("the secret %s can be read by all users: chmod o-r %s", path, shlex.quote(path))


def scrubbed(text: str, url: str) -> str:
    """Return `text`, which somebody else's code wrote about `url`, without what is secret in it.

    A driver may quote any piece of a URL that it could not read, so every piece of what stands before the last `@` goes.
    Without an `@`, anything may be a password in the wrong place, but HOST:PORT with digits for the port, and what a query
    names otherwise (`sslrootcert=/path`).
    """
    rest = url.partition("://")[2]
    doubtful = rest.rpartition("@")[0] or _without_words(rest)
    for piece in sorted(filter(None, re.split(r"[:/?#@&=\s]", doubtful)), key=len, reverse=True):
        if len(piece) > 2:
            text = text.replace(piece, "***")
    return masked(text)


def _without_words(rest: str) -> str:
    """Return a URL's place without HOST:PORT, and the passwords of its query; all of it when the query reads as none."""
    place, _, query = rest.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")] if query else []
    if not all(is_named and re.fullmatch("[a-z_]+", name) for name, is_named, _ in pairs):
        return rest
    return "&".join([_HOST_PORT.sub("", place), *(value for name, _, value in pairs if "pass" in name)])


def masked(text: str) -> str:
    """Return `text` without the user and password of any URL in it."""
    return _USERINFO.sub("***@" if "://" in text else "***", text)


def known_secrets(job: Job | None, sources: Iterable[str | Secret] = ()) -> tuple[bytes, ...]:
    """Return what must not be seen in the output of a job: the secrets in its settings, and the passwords in `sources`.

    What its files of variables set counts as secret from SHORTEST_MASKED_OF_FILE bytes on, and passwords in URLs there.
    All is looked up now, so what was changed since the run is not known any more; what is not to be had is left out, as
    is what is too short. Each is there in all its forms, see `secrets/forms.py`.
    """
    values_of_job = [text for secret in (secrets_in([job.env, job.options]) if job else ()) for text in _values(secret)]
    found = [part for text in values_of_job for part in (text, *parts_of(text))]
    for source in sources:
        found += [password for url in _values(source) for password in passwords_in(url)]
    for text in _variables_of(job) if job else ():
        found += [text] if len(as_bytes(text)) >= SHORTEST_MASKED_OF_FILE else []
        found += passwords_in(text)
    return forms_of(found)


def _variables_of(job: Job) -> Iterator[str]:
    for path in job.env_files:
        with suppress(StartError):
            yield from variables_in(path, None).values()


def secrets_in(value: Any) -> Iterator[Secret]:
    """Yield the references in a value from the configuration, however deep."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from secrets_in(each)


def _values(value: str | Secret) -> Iterator[str]:
    with suppress(SecretError):
        yield resolve_to_mask(value)


def passwords_in(url: str) -> Iterator[str]:
    """Yield the passwords of the URLs in a text, as they are written and as they are meant."""
    for match in _PASSWORD.finditer(url):
        yield from _both(match[1] or match[2] or "")


def parts_of(secret: str) -> Iterator[str]:
    """Yield what is secret by itself in a secret that is a URL: a server, or its driver, may tell no more than that.

    Passwords; of an http(s) URL also who logs in with nothing else, and segments of the path and values of the query from
    SHORTEST_MASKED_OF_FILE bytes on: such a URL is a secret because of the token in one of these.
    """
    yield from passwords_in(secret)
    if not re.match(r"https?://\S+$", secret):
        return
    rest, _, query = secret.partition("#")[0].partition("://")[2].partition("?")
    place, *segments = rest.split("/")
    userinfo, _, _ = place.rpartition("@")
    if userinfo and not userinfo.partition(":")[2]:
        yield from _both(userinfo.removesuffix(":"))
    for text in (*segments, *(pair.partition("=")[2] or pair for pair in query.split("&"))):
        if len(as_bytes(text)) >= SHORTEST_MASKED_OF_FILE:
            yield from _both(text)


def _both(written: str) -> tuple[str, str]:
    return written, unquote(written)
