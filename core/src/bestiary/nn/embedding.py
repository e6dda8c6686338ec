"""The token embedding."""

import torch
import torch.nn.functional as F
from torch import nn


class Embedding(nn.Module):
    """Rows of a table by token id: [T] -> [T, D], times `scale` (Gemma: the square root of D, rounded to the type)."""

    def __init__(self, count: int, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, dim))
        self.scale = scale

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = F.embedding(tokens, self.weight)
        # The released models multiply by the scale rounded to the weights' type.
        return x if self.scale == 1.0 else x * torch.tensor(self.scale, dtype=x.dtype, device=x.device)
