"""AnyMoE: the feed-forward blocks of several models as experts of one (arXiv 2405.19076).

In each chosen layer a gate gives every expert a probability, softmax(W x + b), and one expert works for a token: the
most probable one in the mean over the tokens of its sequence.

mistral.rs (mistralrs-core/src/amoe) takes the mean over what a step computes, the whole prompt and then each new token
by itself.  Here a token's mean is over all tokens up to its own, and so the same whether a prompt comes whole, in parts
or from the cache; at the end of a prompt it is what the gates are trained on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.errors import GenerationError
from bestiary.nn import AttentionSpec, Batch, LanguageModel, LayerSpec, LayerState


class Means(threading.local):
    """The memories of the gates in the step that a thread runs, in the order of the gates."""

    states: Sequence[LayerState] = ()

    @contextmanager
    def of(self, states: Sequence[LayerState]) -> Iterator[None]:
        before, self.states = self.states, states
        try:
            yield
        finally:
            self.states = before


class Gate(nn.Module):
    """x [T, D] -> the logarithms of the experts' probabilities [T, E], in float32.

    It begins with zeros: all experts are equal, and the first is taken.
    """

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(experts, dim), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(experts), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.float(), self.weight, self.bias).log_softmax(-1)


class AnyMoeMLP(nn.Module):
    """A feed-forward block that is one of several for each token; the first is the model's own."""

    def __init__(self, gate: Gate, experts: Sequence[nn.Module], means: Means, index: int) -> None:
        """`index` is the place of the gate among the model's."""
        super().__init__()
        self.gate, self.experts = gate, nn.ModuleList(experts)
        self._means, self._index = means, index

    @property
    def spec(self) -> AttentionSpec:
        """What a gate remembers of each token."""
        count = len(self.experts)
        return AttentionSpec(1, 1, count, 1.0, latent=count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, D] -> [T, D]"""
        choice = self.choose(x)
        used = sorted(set(choice.tolist()))
        if len(used) == 1:
            return self.experts[used[0]](x)  # type: ignore[no-any-return]
        y = torch.empty_like(x)
        for expert in used:
            rows = (choice == expert).nonzero()[:, 0]
            y[rows] = self.experts[expert](x[rows])
        return y

    def choose(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, D] -> the expert of each row [T]."""
        odds = self.gate(x).exp()
        # A query of zeros attends to all positions alike: to their mean.  What is remembered is the distance from even
        # odds, for near a choice that keeps more digits in the types of half precision.
        kept = (odds - 1 / len(self.experts)).to(x.dtype)[:, None]
        if not self._means.states:
            raise GenerationError("The layers of an AnyMoE model run inside it only.")
        mean = self._means.states[self._index].attend(torch.zeros_like(kept), kept, None, self.spec)
        return mean[:, 0].argmax(-1)


class AnyMoeModel(nn.Module):
    """A `bestiary.nn.LanguageModel` over one whose layers have experts; `blocks` are those, by layer."""

    def __init__(self, base: LanguageModel, blocks: Mapping[int, AnyMoeMLP], means: Means) -> None:
        super().__init__()
        self.base, self.blocks, self._means = base, dict(blocks), means

    @property
    def specs(self) -> tuple[LayerSpec, ...]:
        """Those of the base model, then those of the gates."""
        return (*self.base.specs, *(block.spec for block in self.blocks.values()))

    @property
    def vocab_size(self) -> int:
        return self.base.vocab_size

    @property
    def media(self) -> nn.Module | None:
        """The eyes of the model inside."""
        return getattr(self.base, "media", None)

    @property
    def gates(self) -> dict[int, Gate]:
        """By the number of the layer."""
        return {layer: block.gate for layer, block in self.blocks.items()}

    @property
    def expert_count(self) -> int:
        return len(next(iter(self.blocks.values())).experts)

    def hidden(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """tokens [T] -> the states [T, D] before the head."""
        own = len(batch.layers) - len(self.blocks)
        with self._means.of(cast("Sequence[LayerState]", batch.layers[own:])):
            return self.base.hidden(tokens, replace(batch, layers=batch.layers[:own]))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.base.head(hidden)

    def forward(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """tokens [T] -> logits [N, V] of the batch's outputs, in the model's type."""
        x = self.hidden(tokens, batch)
        return self.head(x if batch.outputs is None else x[batch.outputs])
