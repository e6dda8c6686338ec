"""The token embedding."""

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.nn.packed import PackedWeight


class Embedding(nn.Module):
    """Rows of a table by token id: [T] -> [T, D], times `scale` (Gemma: the square root of D, rounded to the type)."""

    def __init__(self, count: int, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight: nn.Parameter | None = nn.Parameter(torch.empty(count, dim))
        self.count, self.scale = count, scale
        self.packed: PackedWeight | None = None
        self.dtype = torch.float32

    def hold(self, weight: nn.Parameter | PackedWeight, dtype: torch.dtype) -> None:
        """Take `weight` in place of what is held; rows of a packed one become `dtype` when they are asked for."""
        self.dtype = dtype
        if isinstance(weight, nn.Parameter):
            self.weight, self.packed = weight, None
        else:
            self.weight, self.packed = None, weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.packed.rows(tokens).dequantize(self.dtype) if self.packed else F.embedding(tokens, self.weight)  # type: ignore[arg-type]
        # The released models multiply by the scale rounded to the weights' type.
        return x if self.scale == 1.0 else x * torch.tensor(self.scale, dtype=x.dtype, device=x.device)
