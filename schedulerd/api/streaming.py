"""Sends the output of a run over HTTP in small pieces: an existing stretch, or all of it until the run ends."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ..process.output_reader import OutputReader, Piece
from ..service.outputs import RunOutput
from .responses import in_thread

PIECE_BYTES = 64 * 1024
POLL_SECONDS = 0.2  # between two checks of the size of an output that is followed
LEDGER_POLL_SECONDS = 1.0  # between two checks of the ledger, when memory does not have the run


class Sender:
    """The body of a response, sent as fast as the caller reads (`transport.py` aborts a connection that stalls)."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._transport = request.transport
        self._response = response

    @property
    def is_gone(self) -> bool:
        """Return whether the caller has disconnected."""
        return self._transport is None or self._transport.is_closing()

    async def send(self, data: bytes) -> None:
        """Send data, and return when there is room for more. Raise ConnectionError when the connection has ended."""
        if data:
            await self._response.write(data)

    def drop(self, why: str) -> None:
        """Abort the connection, so that the data sent is not mistaken for all of it. Raise ConnectionResetError."""
        if self._transport is not None:
            self._transport.abort()
        raise ConnectionResetError(why)


async def send_stretch(sender: Sender, reader: OutputReader, end: int) -> None:
    """Send the output up to the offset `end`, which existed when the request was checked."""
    while (start := reader.offset) < end:
        piece = await in_thread(reader.read, PIECE_BYTES)
        data = reader.flush() if piece.is_last else piece.data
        if piece.dropped or piece.is_anew or (piece.is_last and not data):
            sender.drop("the output was removed or replaced while it was sent")
        await sender.send(data[: end - start])


async def follow(sender: Sender, output: RunOutput, reader: OutputReader, shows_gaps: bool) -> None:
    """Send the existing output, then the output that is added to it, until the run has ended.

    Sending ends at a gap (bytes that were dropped), so that a caller who counts bytes knows the offset; the next request
    begins after the gap. It ends likewise when the run erases its output, which then begins anew. With `shows_gaps`, a line
    in the output marks the place instead. Removal of the output ends it in any case.
    """
    while True:
        is_over = not output.is_open and await in_thread(output.is_complete)  # checked first: then all of it exists
        if not await _send_all(sender, reader, shows_gaps):
            return
        if is_over:
            await sender.send(reader.flush())
            return
        await _wait_for_more(sender, output, reader)
        if sender.is_gone:
            return


async def _send_all(sender: Sender, reader: OutputReader, shows_gaps: bool) -> bool:
    """Send the existing output. Return False when a gap ends it."""
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


async def _wait_for_more(sender: Sender, output: RunOutput, reader: OutputReader) -> None:
    """Return when there is more output to send, or when the run may have ended."""
    while not sender.is_gone:
        await asyncio.sleep(POLL_SECONDS if output.is_open else LEDGER_POLL_SECONDS)
        if output.size != reader.ahead or not output.is_open:
            return
