"""Read the output of a run forward, in pieces, with its secrets masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..secrets.masking import Mask
from .output import OutputFolder


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of the output: `dropped` bytes were skipped, then `data`. `is_last`: there is no more for now.

    `is_anew`: the run has erased its output (as `> /dev/stderr` does), and reading continues at offset 0. `is_gone`: the
    output was removed.
    """

    data: bytes
    dropped: int = 0
    is_last: bool = False
    is_anew: bool = False
    is_gone: bool = False


class OutputReader:
    """The position of one reader in the output of a run. `offset` is that of the next byte that it returns."""

    def __init__(self, folder: OutputFolder, run_id: str, secrets: Sequence[bytes], offset: int) -> None:
        self.offset = offset
        self._folder = folder
        self._run_id = run_id
        self._secrets = secrets
        self._mask = Mask(secrets)
        self._at = self._ahead = max(0, offset - self._mask.reach)  # a secret may begin before the offset
        self._seen = 0  # the output is at least this long, unless it was erased

    @property
    def ahead(self) -> int:
        """Return how far the output was read, including bytes that the mask holds back."""
        return self._ahead

    def read(self, most: int) -> Piece:
        """Return the next piece of about `most` bytes at most. It may be empty although there is more."""
        chunk = self._folder.read(self._run_id, self._ahead, most)
        if not chunk.data and not chunk.dropped and self._folder.size(self._run_id) < self._seen:
            return Piece(b"", is_last=True, is_gone=True) if self._folder.is_gone(self._run_id) else self._begin_anew()
        if chunk.dropped and self._mask.held:
            return Piece(self._shown(self._mask.flush()))  # first the bytes before the gap
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
        """Return the bytes that the mask holds back, at the end of the output. The beginning of a secret is masked, too."""
        return self._shown(self._mask.flush())

    def _shown(self, data: bytes) -> bytes:
        """Return the part of `data`, which begins at `_at`, that is not before `offset`; advance both."""
        before = max(0, self.offset - self._at)
        self._at += len(data)
        self.offset = max(self.offset, self._at)
        return data[before:]
