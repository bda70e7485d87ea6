"""Read the output of a run forward, piece by piece, with its secrets masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..secrets.masking import Mask
from .output import OutputFolder


@dataclass(frozen=True, slots=True)
class Piece:
    """What is shown next: after `dropped` bytes that are gone, `data`. `is_last`: there is no more for now.

    `is_anew`: the run has erased its output (as `> /dev/stderr` does), and what follows is from its beginning. `is_gone`:
    somebody has removed its output.
    """

    data: bytes
    dropped: int = 0
    is_last: bool = False
    is_anew: bool = False
    is_gone: bool = False


class Reader:
    """One reader's place in the output of a run. `offset` is that of the next byte that it will show."""

    def __init__(self, folder: OutputFolder, run_id: str, secrets: Sequence[bytes], offset: int) -> None:
        self.offset = offset
        self._folder = folder
        self._run_id = run_id
        self._secrets = secrets
        self._mask = Mask(secrets)
        self._at = self._ahead = max(0, offset - self._mask.reach)  # a secret may have begun before
        self._seen = 0  # how long the output is at least, unless it is erased

    @property
    def ahead(self) -> int:
        """Return how far the output has been read, what the mask holds back included."""
        return self._ahead

    def read(self, most: int) -> Piece:
        """Return the next piece, of at most about `most` bytes; it may be empty although there is more."""
        chunk = self._folder.read(self._run_id, self._ahead, most)
        if not chunk.data and not chunk.dropped and self._folder.size(self._run_id) < self._seen:
            return Piece(b"", is_last=True, is_gone=True) if self._folder.is_gone(self._run_id) else self._begin_anew()
        if chunk.dropped and self._mask.held:
            return Piece(self._shown(self._mask.flush()))  # first what was before the gap
        dropped = 0
        if chunk.dropped:
            self._at = self._ahead = self._ahead + chunk.dropped
            dropped = max(0, self._at - self.offset)
            self.offset = max(self.offset, self._at)
            self._mask.begin_after_gap()
        self._ahead = chunk.next_offset
        if chunk.data:
            self._seen = chunk.next_offset
        return Piece(self._shown(self._mask.feed(chunk.data)), dropped, is_last=not chunk.data and not chunk.dropped)

    def _begin_anew(self) -> Piece:
        self._mask = Mask(self._secrets)
        self.offset = self._at = self._ahead = self._seen = 0
        return Piece(b"", is_anew=True)

    def flush(self) -> bytes:
        """Return what the mask has held back: no more will come, so the beginning of a secret is shown as stars, too."""
        return self._shown(self._mask.flush())

    def _shown(self, data: bytes) -> bytes:
        """Return what of `data`, which begins at `_at`, is not before the reader's place; and move that."""
        before = max(0, self.offset - self._at)
        self._at += len(data)
        self.offset = max(self.offset, self._at)
        return data[before:]
