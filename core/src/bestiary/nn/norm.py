"""Normalisation layers."""

import torch
from torch import nn

from bestiary.nn.operations import PLAIN


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019) of x [..., D], computed in float32.

    `offset` is added to the weight: Gemma stores the weight less one, and multiplies before it rounds to the type of x.
    """

    ops = PLAIN

    def __init__(self, dim: int, eps: float = 1e-6, offset: float = 0.0) -> None:
        super().__init__()
        self.weight, self.eps, self.offset = nn.Parameter(torch.empty(dim)), eps, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ops.rms_norm(x, self.weight, self.eps, self.offset)

    def after(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x + y, and the norm of that."""
        return self.ops.add_rms_norm(x, y, self.weight, self.eps, self.offset)


class LayerNorm(nn.Module):
    """Layer norm (Ba, Kiros and Hinton 2016) of x [..., D]."""

    ops = PLAIN

    def __init__(self, dim: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(dim)), eps
        self.bias = nn.Parameter(torch.empty(dim)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ops.layer_norm(x, self.weight, self.bias, self.eps)
