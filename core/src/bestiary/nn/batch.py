"""What one step of a model works on: a flat batch, and for each layer the state that it may read and extend.

There is no ambient context: whoever runs a model makes a Batch and passes it.  Layers see their own LayerState only, so
that a cache, a paged pool or a recurrent state can stand behind the same call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    latent: int | None = None
    """The values are the first so many numbers of the keys, and not kept beside them (multi-head latent attention,
    DeepSeek-V2, arXiv 2405.04434, with the projections of keys and values absorbed)."""

    @property
    def value_dim(self) -> int:
        return self.latent or self.head_dim


@dataclass(frozen=True)
class RecurrentSpec:
    """A layer that keeps a state of fixed size in place of every token: a state space, a delta rule, a convolution."""

    shapes: tuple[tuple[int, ...], ...]
    """Of the state's tensors, for one sequence."""
    dtypes: tuple[torch.dtype, ...] = ()
    """Their types; empty: the cache's."""


LayerSpec = AttentionSpec | RecurrentSpec
"""What a layer remembers of a sequence."""


@dataclass(frozen=True)
class Features:
    """What the encoders of pictures and sounds put in place of the embeddings of tokens."""

    rows: torch.Tensor
    """[M] int64: which rows of the batch."""
    values: torch.Tensor
    """[M, D]."""

    def into(self, x: torch.Tensor) -> torch.Tensor:
        """The embeddings x [T, D] with these rows in their places."""
        return x.index_copy(0, self.rows, self.values.to(x.dtype))


class MediaEncoder(Protocol):
    """The eyes or ears of a model: `CausalLM.media`."""

    def encode(self, media: Sequence[Mapping[str, torch.Tensor]]) -> Sequence[torch.Tensor]:
        """The tensors of each medium (`bestiary.media.prepared.Prepared.tensors`) -> its rows [rows, D].

        Numbers come in the type of the model.
        """


class LayerState(Protocol):
    """One attention layer's view of the sequences of a step."""

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor | None,
        spec: AttentionSpec,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Remember k and v [T, KH, D], and attend from q [T, H, D] to all that each sequence remembers: [T, H, D].

        `sinks` [H] are learned scores that take probability and give nothing.  Of a latent v is None, and the result
        [T, H, latent].
        """


class RecurrentState(Protocol):
    """One recurrent layer's view of the sequences of a step."""

    @property
    def counts(self) -> Sequence[int]:
        """How many rows of the batch each sequence has."""

    def load(self, spec: RecurrentSpec) -> tuple[torch.Tensor, ...]:
        """The state of each sequence after its earlier tokens, [N, *shape]; zeros where it begins."""

    def store(self, states: Sequence[torch.Tensor]) -> None:
        """The state of each sequence after this step's tokens."""


@dataclass(frozen=True)
class Batch:
    """The new tokens of all sequences of a step, one sequence after another."""

    positions: torch.Tensor
    """[T] int64: each token's position in its sequence; or [3, T] of time, row and column, where media stand in the
    batch of a model that turns its heads by all three."""
    lengths: torch.Tensor
    """[T] int64: the length of each token's sequence after this step; rotary scalings that depend on it read it."""
    layers: Sequence[LayerState | RecurrentState]
    """One for each of the model's specs."""
    outputs: torch.Tensor | None = None
    """[N] int64: the tokens whose logits are wanted; None: all."""
    features: Features | None = None
    """Rows that are no tokens."""
