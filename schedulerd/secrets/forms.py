"""The forms in which a secret may stand in a text: line by line, and as JSON, URLs, shells and base64 have it. Pure.

What is masked, and from how many bytes on:

- a secret itself, also without the white space around it (a file ends with a newline): SHORTEST_MASKED;
- each line of one that has several, without the white space around it: SHORTEST_MASKED_OF_FILE, the first MOST_LINES, and
  not the lines with dashes around a key (`-----BEGIN …-----`), which are no secret;
- these as JSON, a URL, a shell, HTML and Python escape them: as many bytes as what is escaped;
- a secret in base64, wherever in a longer text it begins, and in lines of 64 or 76 letters: SHORTEST_MASKED_OF_FILE.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

SHORTEST_MASKED = 4  # bytes: what is shorter stands everywhere, and masking it would only make it known
SHORTEST_MASKED_OF_FILE = 8  # ... where most that is short (true, 5432, en_US, a line with a bracket) is no secret
MOST_LINES = 200
LONGEST_ESCAPED = 64 * 1024  # characters; of what is longer only itself and its lines are known

_DASHES = re.compile(r"-{5}[^-]+-{5}")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]*")  # what nobody escapes
_SAFE_IN_URLS = ("", "/", "!'()*~")  # strictly; a path; JavaScript's encodeURIComponent
_GO = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})  # Go's encoding/json, so docker and kubectl
_BASH = re.compile(r"([^\w@%+=:./-])", re.ASCII)  # bash's printf %q
_DROPPED = (0, 2, 3)  # letters of base64 that also say something of the 0, 1 or 2 bytes before
_WIDTHS = (64, 76)  # openssl, PEM; base64(1), MIME
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def forms_of(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Return what must not be seen of secrets, in order, without what is too short to be hidden."""
    found: set[bytes] = set()
    for secret in secrets:
        found.update(_long(_whole(secret), SHORTEST_MASKED))
        found.update(_long(_lines(secret), SHORTEST_MASKED_OF_FILE))
        if len(secret) <= LONGEST_ESCAPED:
            found.update(_in_base64(as_bytes(secret)))
    return tuple(sorted(found))


def as_bytes(text: str) -> bytes:
    """Return a text as a process got it; what is no UTF-8 in it comes from `surrogateescape`."""
    return text.encode("utf-8", "surrogateescape")


def _long(texts: Iterable[str], shortest: int) -> Iterator[bytes]:
    for text in texts:
        if len(as_bytes(text)) >= shortest:
            yield from map(as_bytes, escaped(text))


def _whole(secret: str) -> set[str]:
    return {secret, secret.strip()}


def _lines(secret: str) -> list[str]:
    lines = dict.fromkeys(line.strip() for line in secret.splitlines())
    secret_ones = [line for line in lines if not _DASHES.fullmatch(line)]
    return secret_ones[:MOST_LINES] if len(lines) > 1 else []


def escaped(text: str) -> set[str]:
    """Return a text as it is, and as those have it who escape what is special to them."""
    if _PLAIN.fullmatch(text) or len(text) > LONGEST_ESCAPED:
        return {text}
    found = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]}
    found |= {each.replace("/", "\\/") for each in found} | {each.translate(_GO) for each in found}
    data = as_bytes(text)
    in_urls = {quote(data, safe) for safe in _SAFE_IN_URLS} | {quote_plus(data)}
    found |= in_urls | {re.sub("%..", lambda hexadecimal: hexadecimal[0].lower(), each) for each in in_urls}
    found |= {html.escape(text), html.escape(text, quote=False)}
    found |= {text.replace("'", "'\"'\"'"), text.replace("'", "'\\''")}  # between single quotes of a shell
    return found | {_BASH.sub(r"\\\1", text), re.sub(r'(["$`\\])', r"\\\1", text)}


def _in_base64(secret: bytes) -> Iterator[bytes]:
    for before, dropped in enumerate(_DROPPED):
        text = b64encode(bytes(before) + secret)[dropped:]
        certain = (before + len(secret)) * 8 // 6 - dropped  # letters that nothing which follows can change
        yield from _in_both_alphabets([text, text[:certain]])
    text = b64encode(secret)
    for width in _WIDTHS:
        if len(text) > width:
            yield from _in_both_alphabets(text[at : at + width] for at in range(0, len(text), width))


def _in_both_alphabets(texts: Iterable[bytes]) -> Iterator[bytes]:
    for text in texts:
        if len(text) >= SHORTEST_MASKED_OF_FILE:
            yield text
            yield text.translate(_URL_SAFE)
