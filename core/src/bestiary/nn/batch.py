"""What one step of a model works on: a flat batch, and for each layer the state that it may read and extend.

There is no ambient context: whoever runs a model makes a Batch and passes it.  Layers see their own LayerState only, so
that a cache, a paged pool or a recurrent state can stand behind the same call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class AttentionSpec:
    """What a layer's attention is; engines read it to make the layer's state, back ends to choose a kernel."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    """A query sees this many positions, its own among them; None: all of the past."""
    softcap: float | None = None
    """Scores become softcap * tanh(scores / softcap)."""


class LayerState(Protocol):
    """One layer's view of the sequences of a step."""

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        spec: AttentionSpec,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Remember k and v [T, KH, D], and attend from q [T, H, D] to all that each sequence remembers: [T, H, D].

        `sinks` [H] are learned scores that take probability and give nothing.
        """


@dataclass(frozen=True)
class Batch:
    """The new tokens of all sequences of a step, one sequence after another."""

    positions: torch.Tensor
    """[T] int64: each token's position in its sequence."""
    lengths: torch.Tensor
    """[T] int64: the length of each token's sequence after this step; rotary scalings that depend on it read it."""
    layers: Sequence[LayerState]
    outputs: torch.Tensor | None = None
    """[N] int64: the tokens whose logits are wanted; None: all."""
