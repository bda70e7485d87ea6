"""Secrets inside URLs: remove them from texts, and list them so that they can be masked. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from .forms import SHORTEST_MASKED_OF_FILE, as_bytes

_PASSWORD = re.compile(r"://[^/@\s]*?:([^/\s]*)@|\bpassword=([^&\s]+)")
_HOST_PORT = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}(?=/|$)")
_USERINFO = re.compile(r"(?<=://)[^/@\s]*@|(?<=password=)[^&\s]+")


def mask_userinfo(text: str) -> str:
    """Return `text` with the user name and password of each URL in it masked."""
    return _USERINFO.sub("***@" if "://" in text else "***", text)


def mask_url(text: str, url: str) -> str:
    """Return `text`, a message of a driver or program about `url`, with all parts of the URL masked that may be secret.

    A driver may quote any part of a URL that it cannot parse, so every part before the last `@` is masked. Without an `@`,
    any part may be a misplaced password, except HOST:PORT with a numeric port and the query parameters that do not hold
    passwords (`sslrootcert=/path`).
    """
    rest = url.partition("://")[2]
    doubtful = rest.rpartition("@")[0] or _without_plain_parts(rest)
    for piece in sorted(filter(None, re.split(r"[:/?#@&=\s]", doubtful)), key=len, reverse=True):
        if len(piece) > 2:
            text = text.replace(piece, "***")
    return mask_userinfo(text)


def _without_plain_parts(rest: str) -> str:
    """Return a URL's address without HOST:PORT, and the passwords of its query.

    Return all of it when the query does not consist of NAME=VALUE pairs.
    """
    address, _, query = rest.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")] if query else []
    if not all(is_named and re.fullmatch("[a-z_]+", name) for name, is_named, _ in pairs):
        return rest
    return "&".join([_HOST_PORT.sub("", address), *(value for name, _, value in pairs if "pass" in name)])


def passwords_in(url: str) -> Iterator[str]:
    """Yield the passwords of the URLs in a text, both percent-encoded as written and decoded."""
    for match in _PASSWORD.finditer(url):
        yield from _both(match[1] or match[2] or "")


def parts_of(secret: str) -> Iterator[str]:
    """Yield the parts of a secret URL that are secrets themselves: a server or driver may quote only such a part.

    These are the passwords. In an http(s) URL they are also a user name without a password, and the path segments and
    query values of at least SHORTEST_MASKED_OF_FILE bytes, because one of them is the token that makes the URL a secret.
    """
    yield from passwords_in(secret)
    if not re.match(r"https?://\S+$", secret):
        return
    rest, _, query = secret.partition("#")[0].partition("://")[2].partition("?")
    address, *segments = rest.split("/")
    userinfo, _, _ = address.rpartition("@")
    if userinfo and not userinfo.partition(":")[2]:
        yield from _both(userinfo.removesuffix(":"))
    for text in (*segments, *(pair.partition("=")[2] or pair for pair in query.split("&"))):
        if len(as_bytes(text)) >= SHORTEST_MASKED_OF_FILE:
            yield from _both(text)


def _both(written: str) -> tuple[str, str]:
    return written, unquote(written)
