"""Most probable tokens, race scores and low random numbers, for rows of logits.

Twice: numpy's routines are several times as fast as torch's on a CPU, and know no other device.  All are exact but the
logarithms in scores, and a row gives the same alone and among others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from bestiary.generation.randomness import UNIT, drawn, drawn_below


class Selection(Protocol):
    """What choosing tokens needs to find in logits [N, V] in float32."""

    def maxima(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest value [N] of each row, NaN where it has one, and the lowest token [N] that has it."""

    def first(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest `count` values [N, count] of each row in falling order, equal ones by token; and the tokens."""

    def exp(self, values: torch.Tensor) -> torch.Tensor:
        """exp of each in float32."""

    def scores(self, scaled: torch.Tensor, keys: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """scaled - log(-log(1 - number)) [N, M] in float64, with the number of each token [N, M] by its key [N, 1]."""

    def below(self, keys: Sequence[int], limits: torch.Tensor, vocabulary: int) -> torch.Tensor:
        """Tokens [N, any], among them all whose number by the row's key is below the row's limit [N]."""


class ByNumpy:
    """On a CPU."""

    def maxima(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.from_numpy(logits.numpy().argmax(-1))
        return logits.gather(1, tokens[:, None])[:, 0], tokens

    def first(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        made = np.empty((len(logits), count), np.int64)
        for row, place in zip(logits.numpy(), made, strict=True):
            found = _likely(row, count)
            bits = (row[found] + 0.0).view(np.int32)
            order = found - ((bits ^ (bits >> 31 & _MAGNITUDE)).astype(np.int64) << 32)
            place[:] = np.sort(np.partition(order, count - 1)[:count]) & _LOW
        tokens = torch.from_numpy(made)
        return logits.gather(1, tokens), tokens

    def exp(self, values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.exp(values.numpy()))

    def scores(self, scaled: torch.Tensor, keys: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        numbers = (drawn(keys.numpy(), tokens.numpy()) + 0.5) * UNIT
        return torch.from_numpy(scaled.numpy() - np.log(-np.log1p(-numbers)))

    def below(self, keys: Sequence[int], limits: torch.Tensor, vocabulary: int) -> torch.Tensor:
        found = drawn_below(keys, limits.tolist(), vocabulary)
        made = np.zeros((len(found), max(map(len, found))), np.int64)
        for tokens, place in zip(found, made, strict=True):
            place[: len(tokens)] = tokens
        return torch.from_numpy(made)


class ByTorch:
    """On any device, without waiting for it."""

    def maxima(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = logits.max(-1)
        return found.values, found.indices

    def first(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        bits = (logits + 0.0).view(torch.int32)
        every = torch.arange(logits.shape[-1], device=logits.device)
        order = every - ((bits ^ (bits >> 31 & _MAGNITUDE)).long() << 32)
        most = order.topk(count, largest=False).values if count < len(every) else order.sort().values
        tokens = most & _LOW
        return logits.gather(1, tokens), tokens

    def exp(self, values: torch.Tensor) -> torch.Tensor:
        return values.exp()

    def scores(self, scaled: torch.Tensor, keys: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        numbers = (drawn(keys, tokens).double() + 0.5) * UNIT
        return scaled.double() - numbers.neg_().log1p_().neg_().log_()

    def below(self, keys: Sequence[int], limits: torch.Tensor, vocabulary: int) -> torch.Tensor:
        # All: to look at them is no more work than to find those.
        return torch.arange(vocabulary, device=limits.device).expand(len(limits), -1)


# The bits of a float32 (without -0.0) are in its order as an int32, but for the magnitude of negative ones, which is
# turned round.  With its token below them no two are equal, and whatever sorts them gives the same.
_MAGNITUDE, _LOW = (1 << 31) - 1, (1 << 32) - 1


def _likely(row: np.ndarray[Any, np.dtype[np.float32]], count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens, among them the `count` most probable ones: mostly hardly more of them, as every 16th token foretells."""
    if count * 4 < len(row):
        sample = row[::16]
        place = max(0, len(sample) - 8 - count // 16 - count // 32)
        border = np.partition(sample, place)[place]
        if border > -np.inf:
            found = np.flatnonzero(row >= border)
        else:  # a mask leaves few; the others are equal, so that the lowest follow
            found = np.append(np.flatnonzero(row > -np.inf), np.flatnonzero(row[: count * 2] == -np.inf))
        if len(found) >= count:
            return found
    return np.arange(len(row))


def selection_on(device: torch.device) -> Selection:
    """The faster way on a device."""
    return ByNumpy() if device.type == "cpu" else ByTorch()
