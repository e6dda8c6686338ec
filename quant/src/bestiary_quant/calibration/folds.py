"""Where a scale of a weight's columns can be taken out of what comes before, so that the network stays the same.

The rows of a weight, or the weight of a norm, are divided by what the columns of its readers are multiplied with.  That
holds where nothing but a product stands between: after a norm, between values and the attention's output (where each
query head has a key head of its own), and between up and down, whose gate multiplies.  A norm that adds one to its
weight (Gemma) is divided as it multiplies: w' = (1 + w) / s - 1.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

import torch
from torch import nn

from bestiary.nn import Attention, DecoderLayer, Experts, GatedMLP, LayerNorm, Linear, MixtureOfExperts, RMSNorm
from bestiary.nn.packed import Packed

Weights = MutableMapping[str, "torch.Tensor | Packed"]


@dataclass(frozen=True)
class Fold:
    """One place; names are those of parameters."""

    divided: tuple[str, ...]
    """What is divided: weight and bias of a norm, or the rows of a weight and its bias."""
    readers: tuple[str, ...]
    """Every weight that is multiplied with the result, [out, in] or [experts, out, in]."""
    offset: float = 0.0
    """What the norm adds to its weight."""
    expert: int | None = None
    """Which expert of stacks it is in; None: all of them, or none."""

    def possible(self, weights: Weights) -> bool:
        """Whether all that changes is there as plain numbers."""
        return all(isinstance(weights.get(name), torch.Tensor) for name in (*self.divided, *self.readers))

    def apply(self, weights: Weights, scale: torch.Tensor) -> None:
        """Change the weights, in the types that they have: to new tensors, or an expert's where it lies."""
        for name in self.divided:
            weights[name] = self._changed(weights[name], 1 / scale, rows=True)
        for name in self.readers:
            weights[name] = self._changed(weights[name], scale, rows=False)

    def _changed(self, weight: torch.Tensor | Packed, factor: torch.Tensor, *, rows: bool) -> torch.Tensor:
        assert isinstance(weight, torch.Tensor)  # as `possible` says
        chosen = weight if self.expert is None or weight.ndim < 3 else weight[self.expert]
        if rows and chosen.ndim == 2:
            made = chosen.float() * factor[:, None]
        elif rows:
            made = (chosen.float() + self.offset) * factor - self.offset
        else:
            made = chosen.float() * factor
        if chosen is weight:
            return made.to(weight.dtype)
        chosen.copy_(made)
        return weight


def folds(layer: nn.Module, front: str) -> Iterator[Fold]:
    """The folds of a decoder layer whose parameters' names begin with `front`, in order; none for other modules."""
    if not isinstance(layer, DecoderLayer) or not isinstance(layer.self_attn, Attention):
        return
    attention = layer.self_attn
    if norm := _norm(layer.input_layernorm, f"{front}input_layernorm"):
        names = tuple(f"{front}self_attn.{part}_proj.weight" for part in "qkv")
        yield Fold(norm[0], names, norm[1])
    spec = attention.spec
    if spec.heads == spec.kv_heads and spec.latent is None:
        yield Fold(_rows(attention.v_proj, f"{front}self_attn.v_proj"), (f"{front}self_attn.o_proj.weight",))
    before = "post_attention_layernorm" if layer.pre_feedforward_layernorm is None else "pre_feedforward_layernorm"
    norm = _norm(getattr(layer, before), f"{front}{before}")
    mlp = f"{front}mlp."
    if isinstance(layer.mlp, GatedMLP):
        if norm:
            yield Fold(norm[0], (f"{mlp}gate_proj.weight", f"{mlp}up_proj.weight"), norm[1])
        yield Fold(_rows(layer.mlp.up_proj, f"{mlp}up_proj"), (f"{mlp}down_proj.weight",))
    elif isinstance(layer.mlp, MixtureOfExperts) and isinstance(layer.mlp.experts, Experts):
        yield from _experts(layer.mlp, mlp, norm)


def _experts(mixture: MixtureOfExperts, front: str, norm: tuple[tuple[str, ...], float] | None) -> Iterator[Fold]:
    readers = [f"{front}gate.weight", f"{front}experts.gate_proj", f"{front}experts.up_proj"]
    shared = mixture.shared_expert
    if shared is not None:
        readers += [f"{front}shared_expert.gate_proj.weight", f"{front}shared_expert.up_proj.weight"]
    if mixture.shared_expert_gate is not None:
        readers.append(f"{front}shared_expert_gate.weight")
    if norm:
        yield Fold(norm[0], tuple(readers), norm[1])
    for expert in range(mixture.experts.count):
        yield Fold((f"{front}experts.up_proj",), (f"{front}experts.down_proj",), expert=expert)
    if shared is not None:
        up = _rows(shared.up_proj, f"{front}shared_expert.up_proj")
        yield Fold(up, (f"{front}shared_expert.down_proj.weight",))


def _norm(module: nn.Module | None, name: str) -> tuple[tuple[str, ...], float] | None:
    if isinstance(module, RMSNorm):
        return (f"{name}.weight",), module.offset
    if isinstance(module, LayerNorm):
        return (f"{name}.weight", *((f"{name}.bias",) if module.bias is not None else ())), 0.0
    return None


def _rows(module: Linear, name: str) -> tuple[str, ...]:
    return (f"{name}.weight", *((f"{name}.bias",) if module.bias is not None else ()))
