"""Maxima, largest values and places of values in rows of logits.

Twice: numpy's routines are several times as fast as torch's on a CPU, and know no other device.  All are exact, so that
both ways give the same, and a row gives the same alone and among others.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch


class Selection(Protocol):
    """What choosing tokens needs to find in logits [N, V] in float32."""

    def maxima(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest value [N] of each row, NaN where it has one, and the lowest token [N] that has it."""

    def largest(self, logits: torch.Tensor, count: int) -> torch.Tensor:
        """The largest `count` values [N, count] of each row, in falling order."""

    def nth(self, logits: torch.Tensor, values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Of the tokens of each row with exactly its value [N], the one at its place [N]; 0 where there is none."""


class ByNumpy:
    """On a CPU."""

    def maxima(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.from_numpy(logits.numpy().argmax(-1))
        return logits.gather(1, tokens[:, None])[:, 0], tokens

    def largest(self, logits: torch.Tensor, count: int) -> torch.Tensor:
        made = np.empty((len(logits), count), np.float32)
        for row, place in zip(logits.numpy(), made, strict=True):
            few = np.partition(row, len(row) - count)[len(row) - count :] if count < len(row) else row
            place[:] = np.sort(few)[::-1]
        return torch.from_numpy(made)

    def nth(self, logits: torch.Tensor, values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        tokens = []
        for row, value, place in zip(logits.numpy(), values.numpy(), places.tolist(), strict=True):
            found = np.flatnonzero(row == value)
            tokens.append(int(found[place]) if 0 <= place < len(found) else 0)
        return torch.tensor(tokens)


class ByTorch:
    """On any device, without waiting for it."""

    def maxima(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = logits.max(-1)
        return found.values, found.indices

    def largest(self, logits: torch.Tensor, count: int) -> torch.Tensor:
        if count < logits.shape[-1]:
            return logits.topk(count).values
        return logits.sort(-1, descending=True).values

    def nth(self, logits: torch.Tensor, values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        among = (logits == values[:, None]).cumsum(-1, dtype=torch.int32)
        return (among > places[:, None]).byte().argmax(-1)


def selection_on(device: torch.device) -> Selection:
    """The faster way on a device."""
    return ByNumpy() if device.type == "cpu" else ByTorch()
