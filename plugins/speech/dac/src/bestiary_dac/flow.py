"""Sound that passes the layers piece by piece, as if it came whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Prepared = tuple[torch.Tensor, ...]
"""Weights of a layer as its arithmetic wants them."""


class Flow:
    """What the layers remember between two pieces of one sound.

    A layer whose steps look at their neighbours keeps those at the end of a piece, and waits with the steps that lack
    some on their right; before the first piece and behind the last there is silence.  So pieces of any sizes give what
    the whole gives, and nothing is computed twice.
    """

    def __init__(self, weights: dict[nn.Module, Prepared] | None = None) -> None:
        """`weights` are those that another flow prepared."""
        self.last = False
        """Whether the piece on its way is the last one."""
        self.weights: dict[nn.Module, Prepared] = {} if weights is None else weights
        self._kept: dict[nn.Module, torch.Tensor] = {}
        self._skipped: dict[nn.Module, int] = {}

    def prepared(self, layer: nn.Module, make: Callable[[], Prepared]) -> Prepared:
        """What `make` gives, made once: weights in the type and the order of the arithmetic, for as long as this."""
        if layer not in self.weights:
            self.weights[layer] = make()
        return self.weights[layer]

    def window(self, layer: nn.Module, x: torch.Tensor, reach: int, span: int, stride: int = 1) -> torch.Tensor:
        """The steps x [B, T, C] with those around them that `layer` looks at, in memory of their own.

        `reach` is how many steps of silence there are at both ends of the sound, `span` how many steps one result looks
        at, `stride` how far apart two results are.
        """
        zeros = x.new_zeros((len(x), reach, x.shape[2]))
        parts = (self._kept.get(layer, zeros), x)
        whole = torch.cat((*parts, zeros) if self.last else parts, 1)
        self._kept[layer] = whole[:, results(whole, span, stride) * stride :].clone()
        return whole

    def trimmed(self, layer: nn.Module, y: torch.Tensor, count: int) -> torch.Tensor:
        """What `layer` made [B, T, C], without the first and the last `count` steps of the whole sound."""
        skipped = min(y.shape[1], count - self._skipped.get(layer, 0))
        self._skipped[layer] = self._skipped.get(layer, 0) + skipped
        return y[:, skipped : y.shape[1] - count if self.last else None]


def results(x: torch.Tensor, span: int, stride: int = 1) -> int:
    """How many results of `span` steps each, `stride` apart, x [B, T, C] has."""
    return max(0, (x.shape[1] - span) // stride + 1)
