"""Mixtures of experts: a router, the experts, and what all tokens share."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.nn.activation import activation
from bestiary.nn.linear import Linear
from bestiary.nn.mlp import GatedMLP
from bestiary.nn.operations import PLAIN, HeldStack, by_expert
from bestiary.nn.packed import PackedStack


class Router(nn.Module):
    """Chooses experts for each token: x [T, D] -> weights [T, K] in float32, indices [T, K].

    `score` is "softmax" (over all experts) or "sigmoid" (each alone).  `groups` and `top_groups` keep only the best
    groups of experts in the choice (DeepSeek-V2: by their best expert; V3: by their best two).  `correction` adds a
    learned bias [E] to the choice, not to the weights (DeepSeek-V3).  `scale` multiplies the weights.
    """

    def __init__(
        self,
        dim: int,
        count: int,
        top_k: int,
        *,
        score: str = "softmax",
        normalise: bool = True,
        scale: float = 1.0,
        groups: int = 1,
        top_groups: int = 1,
        correction: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, dim))
        self.e_score_correction_bias = nn.Parameter(torch.empty(count)) if correction else None
        self.top_k, self.score, self.normalise, self.scale = top_k, score, normalise, scale
        self.groups, self.top_groups = groups, top_groups

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.score == "softmax":
            scores = F.linear(x, self.weight).softmax(-1, dtype=torch.float32)
        else:
            scores = F.linear(x.float(), self.weight.float()).sigmoid()
        choice = scores if self.e_score_correction_bias is None else scores + self.e_score_correction_bias.float()
        if self.groups > 1:
            choice = self._best_groups(choice)
        indices = choice.topk(self.top_k, sorted=False).indices
        weights = scores.gather(-1, indices)
        if self.normalise:
            weights = weights / (weights.sum(-1, keepdim=True) + (1e-20 if self.score == "sigmoid" else 0.0))
        return weights * self.scale, indices

    def _best_groups(self, choice: torch.Tensor) -> torch.Tensor:
        grouped = choice.view(len(choice), self.groups, choice.shape[1] // self.groups)
        best = grouped.topk(2 if self.e_score_correction_bias is not None else 1).values.sum(-1)
        kept = torch.zeros_like(best, dtype=torch.bool).scatter(-1, best.topk(self.top_groups).indices, True)
        lowest = 0.0 if self.e_score_correction_bias is None else float("-inf")
        return grouped.masked_fill(~kept[..., None], lowest).flatten(1)


class ExpertsAdapter(Protocol):
    """What adapters add to the projections of experts."""

    def __call__(self, name: str, expert: int, rows: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y [R, out] of an expert's projection `name`, as the adapters of the step's `rows` [R] change it."""


class Experts(nn.Module):
    """Gated feed-forward experts, stacked: gate and up [E, I, D], down [E, D, I]."""

    ops = PLAIN
    projections = ("gate_proj", "up_proj", "down_proj")

    def __init__(self, dim: int, hidden: int, count: int, act: str = "silu") -> None:
        super().__init__()
        self.gate_proj = nn.Parameter(torch.empty(count, hidden, dim))
        self.up_proj = nn.Parameter(torch.empty(count, hidden, dim))
        self.down_proj = nn.Parameter(torch.empty(count, dim, hidden))
        self.count, self.act, self.name = count, activation(act), act
        self.packed: dict[str, PackedStack] = {}
        self.adapter: ExpertsAdapter | None = None

    @property
    def watched(self) -> bool:
        """Whether somebody stands before the products: a function in the instance's dictionary."""
        return "_project" in self.__dict__

    def hold(self, name: str, weight: nn.Parameter | PackedStack) -> None:
        """Take `weight` in place of what the projection `name` holds, which is released."""
        if isinstance(weight, nn.Parameter):
            setattr(self, name, weight)
            self.packed.pop(name, None)
        else:
            setattr(self, name, None)
            self.packed[name] = weight

    def held(self, name: str) -> HeldStack:
        """The stack of the projection `name`, as it is held."""
        packed = self.packed.get(name)
        return getattr(self, name) if packed is None else packed

    def forward(self, x: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """x [T, D], weights and indices [T, K] -> [T, D]."""
        if self.adapter is not None or self.watched:
            return by_expert(x, weights, indices, self.count, self._expert)
        stacks = [self.held(name) for name in self.projections]
        return self.ops.experts(x, weights, indices, stacks, self.name)

    def _expert(self, expert: int, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        gate, up = self._project("gate_proj", expert, x, rows), self._project("up_proj", expert, x, rows)
        return self._project("down_proj", expert, self.act(gate) * up, rows)

    def _project(self, name: str, expert: int, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        packed = self.packed.get(name)
        y = F.linear(x, getattr(self, name)[expert]) if packed is None else packed[expert].multiply(x)
        adapter = self.adapter  # once: another thread may take it away
        return y if adapter is None else adapter(name, expert, rows, x, y)


class MixtureOfExperts(nn.Module):
    """Routed experts, plus an expert for every token where `shared` says how wide, gated where `shared_gate` is set."""

    def __init__(
        self,
        router: Router,
        experts: Experts,
        *,
        shared: GatedMLP | None = None,
        shared_gate: Linear | None = None,
    ) -> None:
        super().__init__()
        self.gate, self.experts, self.shared_expert, self.shared_expert_gate = router, experts, shared, shared_gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, indices = self.gate(x)
        y = self.experts(x, weights, indices)
        if self.shared_expert is not None:
            shared = self.shared_expert(x)
            y = y + (shared if self.shared_expert_gate is None else self.shared_expert_gate(x).sigmoid() * shared)
        return y  # type: ignore[no-any-return]
