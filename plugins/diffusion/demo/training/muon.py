"""Muon (Jordan and others, 2024): steps of momentum with all singular values made alike, for weights of two dimensions
or more; what it does not take stays with AdamW.  A small network learns in half the steps."""

import math
from concurrent.futures import Executor
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def orthogonal(matrix: Tensor, rounds: int = 5) -> Tensor:
    """The nearest half-orthogonal matrix, about: Newton-Schulz with the quintic of the paper, [M, N]."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(rounds):
        gram = x @ x.T
        x = 3.4445 * x + torch.addmm(gram, gram, gram, beta=-4.775, alpha=2.0315) @ x
    return x.T if tall else x


class Muon(Optimizer):
    """Weights [M, ...] are taken as matrices; the step is as long as AdamW's, so that the rates are alike."""

    def __init__(self, weights: list[nn.Parameter], lr: float, pool: Executor | None, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})
        self.pool = pool

    def step(self) -> None:
        for group in self.param_groups:
            moves = [(weight, group) for weight in group["params"] if weight.grad is not None]
            list(self.pool.map(self.move, moves) if self.pool else map(self.move, moves))

    @torch.no_grad()
    def move(self, item: tuple[nn.Parameter, dict[str, Any]]) -> None:
        weight, group = item
        state = self.state[weight]
        if not state:
            state["mean"] = torch.zeros_like(weight)
        state["mean"].lerp_(weight.grad, 1 - group["momentum"])
        step = orthogonal(weight.grad.lerp(state["mean"], group["momentum"]).flatten(1))
        weight.add_(step.view_as(weight), alpha=-group["lr"] * 0.2 * max(step.shape) ** 0.5)


class Pair:
    """Muon for the weights and AdamW for all else, embeddings too, under one schedule from 1 to 0."""

    def __init__(
        self,
        model: nn.Module,
        muon_rate: float,
        adam_rate: float,
        left_out: tuple[str, ...] = (),
        pool: Executor | None = None,
    ) -> None:
        """Weights with a text of `left_out` in their names are AdamW's."""
        tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
        weights, others = [], []
        for name, parameter in model.named_parameters():
            plain = parameter.dim() == 1 or id(parameter) in tables or any(text in name for text in left_out)
            (others if plain else weights).append(parameter)
        self.parameters = [*weights, *others]
        adam = torch.optim.AdamW(others, lr=adam_rate, betas=(0.9, 0.99), weight_decay=0.0)
        self.optimizers = [(Muon(weights, muon_rate, pool), muon_rate), (adam, adam_rate)]

    def step(self, share: float) -> None:
        """One step at `share` of the peak rates; the gradients are spent."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, peak in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer, _ in self.optimizers]

    def load_state_dict(self, saved: list[dict[str, Any]]) -> None:
        for (optimizer, _), state in zip(self.optimizers, saved, strict=True):
            optimizer.load_state_dict(state)


def share(step: int, progress: float) -> float:
    """Of the peak rate: a short warm-up, then over the progress from 0 to 1 a cosine to a hundredth."""
    return min(1.0, (step + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
