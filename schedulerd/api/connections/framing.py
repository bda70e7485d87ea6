"""Finds the boundaries of requests in the data of a connection (RFC 9112), and limits their size, before aiohttp parses it.

A head is passed on when it is complete, so the parser never holds a part of one. Input that two parsers might interpret in
two ways (bare line feeds, folded lines, two lengths, a length beside chunks) is refused: in doubt, the connection is closed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MOST_LINES = 64  # header lines of a head, and lines of a trailer
LARGEST_HEAD = 64 * 1024  # bytes
LARGEST_OVERHEAD = 64 * 1024  # bytes of a chunked body that are not its data: sizes, extensions and the trailer
MOST_CHUNKS = 1024  # of a body; aiohttp stores each of them separately
LONGEST_SIZE = 256  # bytes of the line that begins a chunk, with its extensions

_END = b"\r\n\r\n"
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELD = re.compile(_NAME + rb":[^\r\n\0]*\r\n")
_HEAD = re.compile(rb"(?:\r\n)?" + _NAME + rb" [^\r\n\0]*\r\n(?:" + _NAME + rb":[^\r\n\0]*\r\n)*\r\n")
_OPENING = re.compile(rb"\r?\n?[!#$%&'*+.^_`|~0-9A-Za-z-]|\r\n?\Z")
_DECIDES = re.compile(rb"\n(content-length|transfer-encoding|upgrade):([^\r\n]*)", re.IGNORECASE)
_UPGRADE = re.compile(rb"(?<=\n)upgrade:[^\r\n]*\r\n", re.IGNORECASE)  # after this header, some parsers store all later data
_LENGTH = re.compile(rb"[0-9]{1,18}")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\0]*)?\r\n")


class RefusedError(Exception):
    """The data of a connection exceeds a limit, or is ambiguous."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Framing:
    """The state of one connection. Feed it received data, and pass on the data that it returns."""

    def __init__(self) -> None:
        self.heads = 0  # complete ones
        self._kept = bytearray()  # a head or a line that is not complete yet
        self._lines = 0  # of that head, or of this trailer
        self._left = 0  # bytes of data that are still expected
        self._overhead = self._chunks = 0
        self._out: list[bytes] = []
        self._step: Callable[[bytes, int], int] = self._head

    @property
    def is_in_body(self) -> bool:
        """Return whether a body or its trailer is still expected."""
        return self._step != self._head

    @property
    def is_in_head(self) -> bool:
        """Return whether a head has begun, and is not complete."""
        return self._step == self._head and bool(self._kept)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the data that may be passed on, of at most one request, and the data that must be fed later.

        Raise RefusedError. Then no further data of the connection may be passed on.
        """
        out: list[bytes] = []
        self._out = out  # not stored, since it may be large
        at, most = 0, self.heads + (not self.is_in_body)
        while at < len(data) and (self.heads < most or self.is_in_body):
            at = self._step(data, at)
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out), data[at:]

    def _head(self, data: bytes, at: int) -> int:
        kept, before = self._kept, len(self._kept)
        kept += data[at : at + LARGEST_HEAD + 1 - before]
        if not _OPENING.match(kept):
            raise RefusedError(400, "this is not HTTP")
        end = kept.find(_END, max(0, before - len(_END) + 1))
        if end < 0 and len(kept) > LARGEST_HEAD:
            raise RefusedError(431, f"the head of the request is over {LARGEST_HEAD} bytes")
        self._lines = self._lines + kept.count(b"\n", before) if end < 0 else kept.count(b"\n", 0, end)
        if self._lines > MOST_LINES + (end < 0):  # of a whole head all lines but the first, or all but the last
            raise RefusedError(431, f"the head of the request has more than {MOST_LINES} header lines")
        if end < 0:
            return len(data)
        end += len(_END)
        self._out.append(self._begin(bytes(kept[:end])))
        self._kept = bytearray()
        self._lines = 0
        self.heads += 1
        return at + end - before

    def _begin(self, head: bytes) -> bytes:
        """Determine what follows a head. Return the head to pass on, without a request for another protocol."""
        if not _HEAD.fullmatch(head) or head.lstrip().startswith(b"CONNECT "):
            raise RefusedError(400, "the head of the request is not well formed")
        found = _DECIDES.findall(head)
        if not found:
            return head
        deciding = {name.lower(): value.strip(b" \t") for name, value in found}
        if len(deciding) < len(found) or {b"content-length", b"transfer-encoding"} <= deciding.keys():
            raise RefusedError(400, "the length of the body is given twice")
        length = deciding.get(b"content-length", b"0")
        if not _LENGTH.fullmatch(length) or deciding.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise RefusedError(400, "the length of the body is not well formed")
        self._left, self._overhead, self._chunks = int(length), 0, 0
        if b"transfer-encoding" in deciding:
            self._step = self._size
        elif self._left:
            self._step = self._body
        return _UPGRADE.sub(b"", head) if b"upgrade" in deciding else head

    def _body(self, data: bytes, at: int) -> int:
        at = self._data(data, at)
        if not self._left:
            self._step = self._head
        return at

    def _size(self, data: bytes, at: int) -> int:
        at, line = self._line(data, at, LONGEST_SIZE)
        if line:
            found = _SIZE.fullmatch(line)
            if not found:
                raise RefusedError(400, "the size of a chunk is not well formed")
            self._chunks += 1
            if self._chunks > MOST_CHUNKS:
                raise RefusedError(413, f"the body has more than {MOST_CHUNKS} chunks")
            self._left = int(found[1], 16)
            self._step = self._chunk if self._left else self._trailer
        return at

    def _chunk(self, data: bytes, at: int) -> int:
        at = self._data(data, at)
        if not self._left:
            self._step = self._chunk_end
        return at

    def _chunk_end(self, data: bytes, at: int) -> int:
        at, line = self._line(data, at, LONGEST_SIZE)
        if line:
            if line != b"\r\n":
                raise RefusedError(400, "a chunk is longer than its size")
            self._step = self._size
        return at

    def _trailer(self, data: bytes, at: int) -> int:
        at, line = self._line(data, at, LARGEST_OVERHEAD)
        if line == b"\r\n":
            self._lines = 0
            self._step = self._head
        elif line:
            self._lines += 1
            if self._lines > MOST_LINES:
                raise RefusedError(431, f"the trailer of the body has more than {MOST_LINES} lines")
            if not _FIELD.fullmatch(line) or _DECIDES.match(b"\n" + line):
                raise RefusedError(400, "the trailer of the body is not well formed")
        return at

    def _data(self, data: bytes, at: int) -> int:
        piece = data[at : at + self._left]
        self._left -= len(piece)
        self._out.append(piece)
        return at + len(piece)

    def _line(self, data: bytes, at: int, longest: int) -> tuple[int, bytes]:
        """Return the next position, and a line of a chunked body, which is passed on; an incomplete one is empty."""
        end = data.find(b"\n", at) + 1 or len(data)
        self._overhead += end - at
        if self._overhead > LARGEST_OVERHEAD or len(self._kept) + end - at > longest:
            raise RefusedError(431, "sizes, extensions or trailer of a chunked body are too long")
        self._kept += data[at:end]
        if data[end - 1] != 0x0A:
            return end, b""
        line = bytes(self._kept)
        self._kept = bytearray()
        self._out.append(line)
        return end, line
