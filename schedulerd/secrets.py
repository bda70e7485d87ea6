"""Resolve references to secrets, late: at the moment when the value is needed, and nowhere is it kept.

`{env: X}` is a variable of the daemon's environment, `{file: P}` a file's content without the last newline,
`{credential: N}` a systemd credential (systemd.exec(5), LoadCredential=).
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from .envfiles import variables_in
from .errors import SecretError, StartError
from .files import read_text
from .model import Job, Secret
from .trust import trusted

log = logging.getLogger(__name__)

SIZE_LIMIT = 1024 * 1024  # bytes
SHORTEST_MASKED = 4  # bytes: what is shorter stands everywhere, and masking it would only make it known
LONG_TEXT = 1000  # bytes
SHORTEST_MASKED_OF_FILE = 8  # ... of an env_file, where most that is short (true, 5432, en_US) is no secret
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
        log.warning("the secret %s can be read by all users: chmod o-r %s", path, path)


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
    is what is below SHORTEST_MASKED bytes.
    """
    values_of_job = [text for secret in (secrets_in([job.env, job.options]) if job else ()) for text in _values(secret)]
    found = [part for text in values_of_job for part in (text, *parts_of(text))]
    for source in sources:
        found += [password for url in _values(source) for password in passwords_in(url)]
    for text in _variables_of(job) if job else ():
        found += [text] if len(_bytes(text)) >= SHORTEST_MASKED_OF_FILE else []
        found += passwords_in(text)
    values = set(map(_bytes, found))
    return tuple(sorted(value for value in values if len(value) >= SHORTEST_MASKED))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


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
        if len(_bytes(text)) >= SHORTEST_MASKED_OF_FILE:
            yield from _both(text)


def _both(written: str) -> tuple[str, str]:
    return written, unquote(written)


def masked_output(data: bytes, secrets: Sequence[bytes], begins_cut: bool = False, ends_cut: bool = False) -> bytes:
    """Return `data` with `***` in place of each secret; those that overlap become one.

    Where `data` was cut off, what a secret ends with at its beginning, or begins with at its end, is no less secret, from
    SHORTEST_MASKED bytes on.
    """
    shown, at = [], 0
    for start, end in _merged(_all_spans(data, secrets, begins_cut, ends_cut)):
        shown += [data[at:start], b"***"]
        at = end
    return b"".join([*shown, data[at:]])


def masked_tail(data: bytes, secrets: Sequence[bytes], most: int, begins_cut: bool = False) -> bytes:
    """Return the last `most` bytes of an output, masked as by `masked_output`.

    `data` has `reach_of(secrets)` bytes more, if there are so many: a secret may have begun before.
    """
    at = max(0, len(data) - most)
    for start, end in _merged(_all_spans(data, secrets, begins_cut, ends_cut=True)):
        if start < at < end:  # of a secret that the cut goes through nothing is shown
            at = end
    return masked_output(data[at:], secrets, begins_cut and at == 0, ends_cut=True)


def masked_value(value: Any, secrets: Sequence[bytes]) -> Any:
    """Return a plain JSON value with every text in it masked, the names in mappings, too.

    A long text may have been cut off by who wrote it.
    """
    if isinstance(value, str):
        data = value.encode("utf-8", "replace")
        is_cut = len(data) >= LONG_TEXT
        return masked_output(data, secrets, is_cut, is_cut).decode("utf-8", "replace")
    if isinstance(value, dict):
        return {masked_value(name, secrets): masked_value(each, secrets) for name, each in value.items()}
    return [masked_value(each, secrets) for each in value] if isinstance(value, list) else value


def reach_of(secrets: Sequence[bytes]) -> int:
    """Return how many bytes before one may decide whether it is shown."""
    return max(map(len, secrets), default=1) - 1


class Mask:
    """Puts as many stars as a secret has bytes in its place, in data that comes in pieces: so offsets stay what they were.

    What may be the beginning of a secret is held back until it is known; after a gap, what may be the rest of one, too.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = [secret for secret in secrets if secret]
        self._raw = b""
        self._shown = bytearray()  # as long as _raw: what will be shown of it
        self._is_after_gap = False

    @property
    def reach(self) -> int:
        """Return how many bytes before one may decide whether it is shown."""
        return reach_of(self._secrets)

    @property
    def held(self) -> int:
        """Return how many bytes are held back."""
        return len(self._raw)

    def begin_after_gap(self) -> None:
        """Hear that what is fed next comes after bytes that are gone; nothing is held back."""
        self._is_after_gap = bool(self._secrets)

    def feed(self, data: bytes) -> bytes:
        """Return what can be shown now."""
        if not self._secrets:
            return data
        self._raw += data
        self._shown += data
        if self._is_after_gap and any(self._raw in secret for secret in self._secrets):
            return b""
        for start, end in _all_spans(self._raw, self._secrets, begins_cut=self._is_after_gap):
            self._shown[start:end] = b"*" * (end - start)
        self._is_after_gap = False
        return self._take(len(self._raw) - _beginning(self._raw, self._secrets))

    def flush(self) -> bytes:
        """Return what was held back: it ends here, and what looks like a piece of a secret so far is no less one."""
        if self.held >= SHORTEST_MASKED:
            self._shown[:] = b"*" * self.held
        return self._take(self.held)

    def _take(self, length: int) -> bytes:
        shown, self._shown = bytes(self._shown[:length]), self._shown[length:]
        self._raw = self._raw[length:]
        return shown


def _beginning(data: bytes, secrets: Sequence[bytes]) -> int:
    """Return how long the longest end of the data is that a secret begins with."""
    longest = 0
    for secret in secrets:
        lengths = range(min(len(secret) - 1, len(data)), longest, -1)
        longest = next((length for length in lengths if data.endswith(secret[:length])), longest)
    return longest


def _rest(data: bytes, secrets: Sequence[bytes]) -> int:
    """Return how long the longest beginning of the data is that a secret ends with."""
    longest = 0
    for secret in secrets:
        lengths = range(min(len(secret) - 1, len(data)), longest, -1)
        longest = next((length for length in lengths if data.startswith(secret[-length:])), longest)
    return longest


def _all_spans(
    data: bytes, secrets: Sequence[bytes], begins_cut: bool = False, ends_cut: bool = False
) -> Iterator[tuple[int, int]]:
    """Yield where secrets are, and the pieces of them where the data was cut off."""
    yield from _spans(data, secrets)
    if begins_cut and (length := _rest(data, secrets)) >= SHORTEST_MASKED:
        yield 0, length
    if begins_cut and ends_cut and len(data) >= SHORTEST_MASKED and any(data in secret for secret in secrets):
        yield 0, len(data)
    if ends_cut and (length := _beginning(data, secrets)) >= SHORTEST_MASKED:
        yield len(data) - length, len(data)


def _spans(data: bytes, secrets: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where secrets are, overlapping ones, too."""
    for secret in filter(None, secrets):
        at = data.find(secret)
        while at >= 0:
            yield at, at + len(secret)
            at = data.find(secret, at + 1)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
