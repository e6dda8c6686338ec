"""Codes of several codebooks, each a fixed number of steps behind the first (MusicGen, arXiv 2306.05284, section 2.2).

A model writes rows, one code for each codebook; with delays d the row r holds the codes of frames r - d.  Row 0 is the
beginning: every codebook has `bos` there and before its first frame.  The end is written by the codebook without delay,
and follows in the others as late as they are; behind it there is `pad`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_OPEN = -1


@dataclass(frozen=True)
class Pattern:
    """The delays of all codebooks, of which the first has none, and the codes that are no sound."""

    delays: tuple[int, ...]
    bos: int
    eos: int
    pad: int

    @property
    def longest(self) -> int:
        return max(self.delays)


class Rows:
    """The rows of one sound, as far as they are written, and the frames that are whole."""

    def __init__(self, pattern: Pattern, most: int, before: torch.Tensor | None = None) -> None:
        """`most` is how many frames may be written, `before` [Q, T] are those of a sound that it goes on from."""
        codebooks, known = len(pattern.delays), 0 if before is None else before.shape[1]
        self.pattern = pattern
        self.length = known + 1
        """Rows that are written."""
        self._first = self.length
        self._last = self._first + most  # the row in which the end stands at the latest
        self._rows = torch.full((self._last + pattern.longest + 1, codebooks), _OPEN)
        self._end: int | None = None
        self.finished = False
        """Whether the end was written, and not forced."""
        for book, delay in enumerate(pattern.delays):
            self._rows[: delay + 1, book] = pattern.bos
            if before is not None:
                self._rows[delay + 1 : delay + 1 + known, book] = before[book]

    @property
    def most(self) -> int:
        """Rows that there will be at most."""
        return len(self._rows)

    def rows(self, start: int) -> torch.Tensor:
        """The written rows from `start` on, [n, Q] int64."""
        return self._rows[start : self.length]

    @property
    def written(self) -> int:
        """Rows of the new sound."""
        return self.length - self._first

    def put(self, codes: Sequence[int]) -> None:
        """The next row, as a model wrote it; where a code is known before, that one stands."""
        row = self.length
        if self._end is None and (codes[0] == self.pattern.eos or row == self._last):
            self._end, self.finished = row, codes[0] == self.pattern.eos
        for book, (code, delay) in enumerate(zip(codes, self.pattern.delays, strict=True)):
            if self._end is not None and row >= self._end + delay:
                code = self.pattern.eos if row == self._end + delay else self.pattern.pad
            if self._rows[row, book] == _OPEN:
                self._rows[row, book] = code
        self.length += 1

    @property
    def whole(self) -> int:
        """Frames of the new sound of which every codebook is written."""
        ready = self.length - self.pattern.longest
        return max(0, (ready if self._end is None else min(ready, self._end)) - self._first)

    @property
    def over(self) -> bool:
        """Whether all frames before the end are whole."""
        return self._end is not None and self.length >= self._end + self.pattern.longest

    def frames(self, start: int, stop: int) -> torch.Tensor:
        """Whole frames of the new sound, [Q, stop - start] int64."""
        first = self._first + start
        pairs = enumerate(self.pattern.delays)
        return torch.stack([self._rows[first + delay : self._first + stop + delay, book] for book, delay in pairs])
