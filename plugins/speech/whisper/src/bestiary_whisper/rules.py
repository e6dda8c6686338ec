"""What may come next: tokens that are never written, and the grammar of timestamps.

The grammar is that of Radford et al. 2022 and of their implementation (openai/whisper, decoding.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch

from bestiary_whisper.tokens import Tokens

_NEVER = -torch.inf
_SURELY = 0.01
"""More than what sums are rounded by."""


class Rules:
    """Takes the probability from tokens that may not come next."""

    def __init__(self, tokens: Tokens, device: torch.device | str, *, timestamps: bool) -> None:
        self.tokens, self.timestamps = tokens, timestamps
        always = {*tokens.suppressed, *([tokens.no_timestamps] if timestamps else ())}
        first = {*always, *tokens.suppressed_first}
        self._always, self._first = (
            torch.tensor(sorted(each), dtype=torch.int64, device=device) for each in (always, first)
        )

    def apply(self, logits: torch.Tensor, written: Sequence[Sequence[int]]) -> torch.Tensor:
        """logits [N, V] in float32 with minus infinity where a token may not come; they are written to.

        `written` is what each row has so far, without what it began with.  Log-probabilities will do as well.
        """
        begins = not written[0]
        logits.index_fill_(1, self._first if begins else self._always, _NEVER)
        if self.timestamps:
            for row, so_far in zip(logits, written, strict=True):
                self._time(row, so_far)
        return logits

    def _time(self, row: torch.Tensor, written: Sequence[int]) -> None:
        """Timestamps come in pairs, the end of a phrase and the beginning of the next, and never go back."""
        first = self.tokens.first_timestamp
        if not written:  # with the time at which the first phrase begins
            row[:first] = _NEVER
            if self.tokens.latest_first is not None:
                row[first + self.tokens.latest_first + 1 :] = _NEVER
        last = next((token for token in reversed(written) if token >= first), None)
        if last is not None:
            ended = written[-1] >= first
            paired = ended and (len(written) < 2 or written[-2] >= first)
            if paired:  # a phrase follows
                row[first:] = _NEVER
            elif ended:  # the beginning of the next phrase, or the end
                row[: self.tokens.end] = _NEVER
            # A phrase takes time; the next one may begin where it ended.
            row[first : last if ended and not paired else last + 1] = _NEVER
        # All timestamps together against each word: where they win, it is time for one.  Mostly the greatest of them,
        # as often as there are timestamps, is too small for that.
        words, times = row[:first], row[first:]
        due = float(words.amax())
        if len(times) and float(times.amax()) + log(len(times)) > due - _SURELY and float(times.logsumexp(0)) > due:
            words.fill_(_NEVER)
