"""Send the output of a run over HTTP, in small pieces: a stretch that is there, or what comes until the run has ended."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ..core.models import Run
from ..process.output_reader import Piece, Reader
from ..service.runs import Runs
from .responses import in_thread

PIECE_BYTES = 64 * 1024
POLL_SECONDS = 0.2  # between two looks at the size of an output that is followed
UNSEEN_SECONDS = 1.0  # ... and at the ledger, when memory does not have the run


class Sender:
    """The body of an answer, which goes out no faster than its caller takes it (`metering` cuts one who takes nothing)."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._transport = request.transport
        self._response = response

    @property
    def is_gone(self) -> bool:
        """Return whether the caller has gone away."""
        return self._transport is None or self._transport.is_closing()

    async def send(self, data: bytes) -> None:
        """Send, and return when there is room for more. Raise ConnectionError when the connection has ended."""
        if data:
            await self._response.write(data)

    def drop(self, why: str) -> None:
        """End the connection, so that nobody takes what was sent for the whole. Raises ConnectionResetError."""
        if self._transport is not None:
            self._transport.abort()
        raise ConnectionResetError(why)


async def send_stretch(sender: Sender, reader: Reader, end: int) -> None:
    """Send the output up to the offset `end`, which was there a moment ago."""
    while (start := reader.offset) < end:
        piece = await in_thread(reader.read, PIECE_BYTES)
        data = reader.flush() if piece.is_last else piece.data
        if piece.dropped or piece.is_anew or (piece.is_last and not data):
            sender.drop("what was to be read is gone meanwhile")
        await sender.send(data[: end - start])


async def follow(runs: Runs, sender: Sender, reader: Reader, run: Run, shows_gaps: bool) -> None:
    """Send what there is of the output, and then what comes, until the run has ended.

    At a gap (bytes that were dropped) this ends, so that a caller who counts bytes knows where they are: the next request
    begins behind it. So it does when the run erases its output, which begins anew then. With `shows_gaps` a line tells of
    it instead. An output that somebody removes ends it, too.
    """
    while True:
        is_over = not runs.is_in_sight(run) and await in_thread(runs.is_over, run)  # asked first: then all of it is there
        if not await _send_all(sender, reader, shows_gaps):
            return
        if is_over:
            await sender.send(reader.flush())
            return
        await _wait_for_more(runs, sender, reader, run)
        if sender.is_gone:
            return


async def _send_all(sender: Sender, reader: Reader, shows_gaps: bool) -> bool:
    """Send what is there; return False when a gap ends it."""
    piece = Piece(b"")
    while not piece.is_last:
        piece = await in_thread(reader.read, PIECE_BYTES)
        if piece.dropped or piece.is_anew or piece.is_gone:
            if not shows_gaps:
                return False
            await sender.send(b"\n[schedulerd: %s]\n" % _words(piece))
        if piece.is_gone:
            return False
        await sender.send(piece.data)
    return True


def _words(piece: Piece) -> bytes:
    if piece.is_gone:
        return b"the output of the run was removed"
    return b"the run has erased its output" if piece.is_anew else b"%d bytes dropped" % piece.dropped


async def _wait_for_more(runs: Runs, sender: Sender, reader: Reader, run: Run) -> None:
    """Return when there is more to send, or when nothing will come any more."""
    while not sender.is_gone:
        await asyncio.sleep(POLL_SECONDS if runs.is_in_sight(run) else UNSEEN_SECONDS)
        if runs.output_size(run) != reader.ahead or not runs.is_in_sight(run):
            return
