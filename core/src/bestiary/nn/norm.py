"""Normalisation layers."""

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019) of x [..., D], computed in float32.

    `offset` is added to the weight: Gemma stores the weight less one, and multiplies before it rounds to the type of x.
    """

    def __init__(self, dim: int, eps: float = 1e-6, offset: float = 0.0) -> None:
        super().__init__()
        self.weight, self.eps, self.offset = nn.Parameter(torch.empty(dim)), eps, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.offset:
            h = F.rms_norm(x.float(), x.shape[-1:], None, self.eps)
            return (h * (self.offset + self.weight.float())).to(x.dtype)
        # torch computes in float32 and rounds to the type of x, and only then the weight multiplies.
        return self.weight * F.rms_norm(x, x.shape[-1:], None, self.eps)


class LayerNorm(nn.Module):
    """Layer norm (Ba, Kiros and Hinton 2016) of x [..., D]."""

    def __init__(self, dim: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(dim)), eps
        self.bias = nn.Parameter(torch.empty(dim)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
