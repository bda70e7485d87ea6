"""Mask secrets, in complete texts and in output that arrives in pieces. Pure.

The cost grows with the length of the data, and hardly with the number of secrets, see `secrets/index.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .forms import SHORTEST_MASKED
from .index import Index, beginning_in

LONG_TEXT = 1000  # bytes: a text of this length may have been cut off


def masked_output(data: bytes, secrets: Sequence[bytes], begins_cut: bool = False, ends_cut: bool = False) -> bytes:
    """Return `data` with each secret replaced by `***`; overlapping secrets are replaced together.

    Where `data` was cut off, the end of a secret at its beginning and the beginning of a secret at its end are masked too,
    from SHORTEST_MASKED bytes on.
    """
    shown, at = [], 0
    for start, end in _merged(_all_spans(data, secrets, begins_cut, ends_cut)):
        shown += [data[at:start], b"***"]
        at = end
    return b"".join([*shown, data[at:]])


def masked_tail(data: bytes, secrets: Sequence[bytes], most: int, begins_cut: bool = False) -> bytes:
    """Return the last `most` bytes of an output, masked as by `masked_output`.

    `data` has `reach_of(secrets)` more bytes at its beginning, if available: a secret may begin there.
    """
    at = max(0, len(data) - most)
    for start, end in _merged(_all_spans(data, secrets, begins_cut, ends_cut=True)):
        if start < at < end:  # omit all of a secret that the cut divides
            at = end
    return masked_output(data[at:], secrets, begins_cut and at == 0, ends_cut=True)


def masked_value(value: Any, secrets: Sequence[bytes]) -> Any:
    """Return a JSON value with all texts in it masked, including the names of objects.

    A text of LONG_TEXT bytes or more may have been cut off by its writer.
    """
    if isinstance(value, str):
        data = value.encode("utf-8", "replace")
        is_cut = len(data) >= LONG_TEXT
        return masked_output(data, secrets, is_cut, is_cut).decode("utf-8", "replace")
    if isinstance(value, dict):
        return {masked_value(name, secrets): masked_value(each, secrets) for name, each in value.items()}
    return [masked_value(each, secrets) for each in value] if isinstance(value, list) else value


def reach_of(secrets: Sequence[bytes]) -> int:
    """Return how many bytes before a byte can decide whether it is masked."""
    return max(map(len, secrets), default=1) - 1


class Mask:
    """Masks data that arrives in pieces by as many stars as a secret has bytes, so that offsets do not change.

    A possible beginning of a secret is held back until it is decided; after a gap, a possible rest of one too.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = [secret for secret in secrets if secret]
        self._index = Index(self._secrets)
        self._raw = b""
        self._shown = bytearray()  # as long as _raw: its masked form
        self._is_after_gap = False

    @property
    def reach(self) -> int:
        """Return how many bytes before a byte can decide whether it is masked."""
        return reach_of(self._secrets)

    @property
    def held(self) -> int:
        """Return how many bytes are held back."""
        return len(self._raw)

    def begin_after_gap(self) -> None:
        """Note that bytes are missing before the next piece. Called when nothing is held back."""
        self._is_after_gap = bool(self._secrets)

    def feed(self, data: bytes) -> bytes:
        """Add a piece; return the masked data that is complete."""
        if not self._secrets:
            return data
        self._raw += data
        self._shown += data
        if self._is_after_gap and any(self._raw in secret for secret in self._secrets):
            return b""
        found = self._index.found_in(self._raw)
        for start, end in _all_spans(self._raw, self._secrets, begins_cut=self._is_after_gap, found=found):
            self._shown[start:end] = b"*" * (end - start)
        self._is_after_gap = False
        return self._emit(len(self._raw) - self._index.beginning(self._raw))

    def flush(self) -> bytes:
        """Return what was held back, at the end of the data: a possible part of a secret is masked."""
        if self.held >= SHORTEST_MASKED:
            self._shown[:] = b"*" * self.held
        return self._emit(self.held)

    def _emit(self, length: int) -> bytes:
        shown, self._shown = bytes(self._shown[:length]), self._shown[length:]
        self._raw = self._raw[length:]
        return shown


def _rest(data: bytes, secrets: Iterable[bytes]) -> int:
    """Return the length of the longest beginning of `data` that ends a secret, counting from SHORTEST_MASKED bytes on."""
    longest = 0
    for secret in secrets:
        tail = secret[-SHORTEST_MASKED:]
        end = min(len(data), len(secret) - 1)
        at = data.rfind(tail, 0, end)
        while at >= 0 and at + len(tail) > longest:
            if secret.endswith(data[: at + len(tail)]):
                longest = at + len(tail)
            at = data.rfind(tail, 0, at + len(tail) - 1)
    return longest


def _all_spans(
    data: bytes,
    secrets: Sequence[bytes],
    begins_cut: bool = False,
    ends_cut: bool = False,
    found: Iterable[bytes] | None = None,
) -> Iterator[tuple[int, int]]:
    """Yield the spans of secrets (of `found`, if given), and of parts of them where the data was cut off."""
    yield from spans_of(secrets if found is None else found, data)
    if begins_cut and (length := _rest(data, secrets)) >= SHORTEST_MASKED:
        yield 0, length
    if begins_cut and ends_cut and len(data) >= SHORTEST_MASKED and any(data in secret for secret in secrets):
        yield 0, len(data)
    if ends_cut and (length := beginning_in(data, secrets)) >= SHORTEST_MASKED:
        yield len(data) - length, len(data)


def spans_of(secrets: Iterable[bytes], data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the spans of secrets; repetitions of one that overlaps itself, as in `aaaa…`, form one span."""
    for secret in filter(None, secrets):
        at = data.find(secret)
        while at >= 0:
            following = data.find(secret, at + 1)
            if 0 <= following < at + len(secret):
                period = following - at
                end = _repeated_to(data, following + len(secret), period)
                following = end - len(secret) - (end - len(secret) - at) % period  # the last repetition
                yield at, following + len(secret)
                following = data.find(secret, following + 1)
            else:
                yield at, at + len(secret)
            at = following


def _repeated_to(data: bytes, end: int, period: int) -> int:
    """Return the offset up to which the data repeats itself with `period` bytes, starting from `end`."""
    size = 1
    while size:
        piece = data[end : end + size]
        is_alike = len(piece) == size and piece == data[end - period : end - period + size]
        end, size = (end + size, 2 * size) if is_alike else (end, size // 2)
    return end


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
