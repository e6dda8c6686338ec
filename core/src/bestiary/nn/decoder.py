"""The decoder of a causal language model: layers, the stack of them, and the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import nn

from bestiary.nn.attention import Attention
from bestiary.nn.batch import AttentionSpec, Batch, LayerSpec, LayerState
from bestiary.nn.embedding import Embedding
from bestiary.nn.linear import Linear
from bestiary.nn.norm import RMSNorm
from bestiary.nn.operations import PLAIN
from bestiary.nn.rope import Rope, Rotation

Norm = Callable[[], nn.Module]


class DecoderLayer(nn.Module):
    """Attention and a feed-forward block, each after a norm and added to its input.

    `sandwich` norms each branch once more before it is added (Gemma 2 and 3), under Hugging Face's names for these.
    """

    ops = PLAIN

    def __init__(self, attention: Attention, mlp: nn.Module, norm: Norm, *, sandwich: bool = False) -> None:
        super().__init__()
        self.self_attn, self.mlp = attention, mlp
        self.input_layernorm, self.post_attention_layernorm = norm(), norm()
        self.pre_feedforward_layernorm = norm() if sandwich else None
        self.post_feedforward_layernorm = norm() if sandwich else None

    @property
    def spec(self) -> AttentionSpec:
        """What an engine must know to make this layer's state."""
        return self.self_attn.spec

    def forward(
        self, x: torch.Tensor, rotation: Rotation | None, positions: torch.Tensor, state: LayerState
    ) -> torch.Tensor:
        attended = self.self_attn(self.input_layernorm(x), rotation, positions, state)
        if self.pre_feedforward_layernorm is None or self.post_feedforward_layernorm is None:
            x, h = self._add(x, attended, self.post_attention_layernorm)
            return self.ops.add(x, self.mlp(h))
        x, h = self._add(x, self.post_attention_layernorm(attended), self.pre_feedforward_layernorm)
        return self.ops.add(x, self.post_feedforward_layernorm(self.mlp(h)))

    def _add(self, x: torch.Tensor, y: torch.Tensor, norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """x + y, and the norm of that: at once where the norm can."""
        if isinstance(norm, RMSNorm):
            return norm.after(x, y)
        total = self.ops.add(x, y)
        return total, norm(total)


class Decoder(nn.Module):
    """Embedding, layers and final norm.

    `ropes` are the rotations that the layers use, by kind, and `kinds` names each layer's; a layer whose kind has no
    rope is not rotated.  A step computes each kind's angles once.
    """

    def __init__(
        self,
        embed_tokens: Embedding,
        layers: Sequence[DecoderLayer],
        norm: nn.Module,
        ropes: dict[str, Rope],
        kinds: Sequence[str],
    ) -> None:
        super().__init__()
        self.embed_tokens, self.layers, self.norm = embed_tokens, nn.ModuleList(layers), norm
        self.ropes, self.kinds = nn.ModuleDict(ropes), tuple(kinds)

    def forward(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """tokens [T] -> hidden states [T, D]."""
        x = self.embed_tokens(tokens)
        if batch.features is not None:
            x = batch.features.into(x)
        rotations = {kind: rope(batch.positions, batch.lengths).to(x.dtype) for kind, rope in self.ropes.items()}
        for layer, kind, state in zip(self.layers, self.kinds, batch.layers, strict=True):
            x = layer(x, rotations.get(kind), batch.positions, state)
        return self.norm(x)  # type: ignore[no-any-return]


class LanguageModel(Protocol):
    """What an engine runs: hidden states of a step's tokens, and the logits of those that are wanted."""

    @property
    def specs(self) -> Sequence[LayerSpec]:
        """What to make the batch's layer states from, in order."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: the ids that a prompt may have."""

    def hidden(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """tokens [T] -> the states [T, D] before the head."""

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """states [N, D] -> logits [N, V] in the model's type."""


class CausalLM(nn.Module):
    """A decoder and its head, which may cap the logits: softcap * tanh(logits / softcap).

    A model that sees or hears has a `bestiary.nn.MediaEncoder` as its `media`, a module that its family sets.
    """

    media: nn.Module | None

    def __init__(self, model: Decoder, dim: int, vocab_size: int, *, softcap: float | None = None) -> None:
        super().__init__()
        self.model, self.lm_head, self.softcap = model, Linear(dim, vocab_size), softcap
        self.media = None

    @property
    def specs(self) -> tuple[LayerSpec, ...]:
        """What each layer remembers, in order: what an engine must know to make the states of a batch."""
        return tuple(layer.spec for layer in self.model.layers)  # type: ignore[misc]

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, which may be more than the tokenizer has tokens."""
        return self.model.embed_tokens.count

    def hidden(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """tokens [T] -> the states [T, D] before the head."""
        return self.model(tokens, batch)  # type: ignore[no-any-return]

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """states [N, D] -> logits [N, V] in the model's type."""
        logits: torch.Tensor = self.lm_head(hidden)
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def forward(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """tokens [T] -> logits [N, V] of the batch's outputs, in the model's type."""
        x = self.hidden(tokens, batch)
        return self.head(x if batch.outputs is None else x[batch.outputs])
