"""The token embedding."""

import torch
from torch import nn

from bestiary.nn.operations import PLAIN, Held
from bestiary.nn.packed import PackedWeight


class Embedding(nn.Module):
    """Rows of a table by token id: [T] -> [T, D], times `scale` (Gemma: the square root of D, rounded to the type)."""

    ops = PLAIN

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

    @property
    def held(self) -> Held:
        """The table, as it is held."""
        return self.packed if self.weight is None else self.weight  # type: ignore[return-value]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.ops.embed(tokens, self.held, self.dtype, self.scale)
