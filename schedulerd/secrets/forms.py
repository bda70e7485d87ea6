"""The forms in which a secret may occur in a text: by line, and as encoded in JSON, URLs, shells and base64. Pure.

What is masked, and from which length on:

- a secret, also without surrounding white space (a file ends with a newline): SHORTEST_MASKED;
- each line of a secret of several lines, without surrounding white space: SHORTEST_MASKED_OF_FILE, the first MOST_LINES,
  except the delimiters of keys (`-----BEGIN …-----`), which are not secret;
- these as escaped in JSON, URLs, shells, HTML and Python: the length before escaping counts;
- a secret in base64, at any offset of a longer text, and in lines of 64 or 76 characters: SHORTEST_MASKED_OF_FILE.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

SHORTEST_MASKED = 4  # bytes: shorter texts occur everywhere, and masking them would reveal them
SHORTEST_MASKED_OF_FILE = 8  # bytes: most short values in files (true, 5432, en_US, a bracket) are not secret
MOST_LINES = 200
LONGEST_ESCAPED = 64 * 1024  # characters: of a longer secret, only itself and its lines are masked

_DASHES = re.compile(r"-{5}[^-]+-{5}")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]*")  # text that no encoding escapes
_SAFE_IN_URLS = ("", "/", "!'()*~")  # strict; a path; JavaScript's encodeURIComponent
_GO = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})  # Go's encoding/json, as in docker and kubectl
_BASH = re.compile(r"([^\w@%+=:./-])", re.ASCII)  # bash's printf %q
_DROPPED = (0, 2, 3)  # characters of base64 that depend on the 0, 1 or 2 preceding bytes
_WIDTHS = (64, 76)  # openssl, PEM; base64(1), MIME
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def forms_of(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Return all forms of secrets, sorted, except those that are too short to mask."""
    found: set[bytes] = set()
    for secret in secrets:
        found.update(_long(_whole(secret), SHORTEST_MASKED))
        found.update(_long(_lines(secret), SHORTEST_MASKED_OF_FILE))
        if len(secret) <= LONGEST_ESCAPED:
            found.update(_in_base64(as_bytes(secret)))
    return tuple(sorted(found))


def as_bytes(text: str) -> bytes:
    """Return a text as a process received it; invalid UTF-8 is represented by `surrogateescape`."""
    return text.encode("utf-8", "surrogateescape")


def _long(texts: Iterable[str], shortest: int) -> Iterator[bytes]:
    for text in texts:
        if len(as_bytes(text)) >= shortest:
            yield from map(as_bytes, encodings_of(text))


def _whole(secret: str) -> set[str]:
    return {secret, secret.strip()}


def _lines(secret: str) -> list[str]:
    lines = dict.fromkeys(line.strip() for line in secret.splitlines())
    secret_ones = [line for line in lines if not _DASHES.fullmatch(line)]
    return secret_ones[:MOST_LINES] if len(lines) > 1 else []


def encodings_of(text: str) -> set[str]:
    """Return a text itself and as the supported encodings escape it."""
    if _PLAIN.fullmatch(text) or len(text) > LONGEST_ESCAPED:
        return {text}
    found = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]}
    found |= {each.replace("/", "\\/") for each in found} | {each.translate(_GO) for each in found}
    data = as_bytes(text)
    in_urls = {quote(data, safe) for safe in _SAFE_IN_URLS} | {quote_plus(data)}
    found |= in_urls | {re.sub("%..", lambda hexadecimal: hexadecimal[0].lower(), each) for each in in_urls}
    found |= {html.escape(text), html.escape(text, quote=False)}
    found |= {text.replace("'", "'\"'\"'"), text.replace("'", "'\\''")}  # in single quotes of a shell
    return found | {_BASH.sub(r"\\\1", text), re.sub(r'(["$`\\])', r"\\\1", text)}


def _in_base64(secret: bytes) -> Iterator[bytes]:
    for before, dropped in enumerate(_DROPPED):
        text = b64encode(bytes(before) + secret)[dropped:]
        certain = (before + len(secret)) * 8 // 6 - dropped  # characters that do not depend on what follows
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
