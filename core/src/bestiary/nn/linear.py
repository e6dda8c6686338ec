"""The linear layer, over a plain tensor or a weight packed in fewer bits."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.nn.packed import PackedWeight


class LinearAdapter(Protocol):
    """What adapters add to a linear layer; it knows itself which of them the rows of a step asked for."""

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y [T, out] of the layer, as the adapters of the rows of x [T, in] change it; y may be written to."""


class Linear(nn.Module):
    """y = x W' + b, for x [..., in], where W is a parameter or a packed weight (see `hold`)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        self.weight: nn.Parameter | None = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.packed: PackedWeight | None = None
        self.adapter: LinearAdapter | None = None

    def hold(self, weight: nn.Parameter | PackedWeight) -> None:
        """Take `weight` in place of what is held, which is released."""
        if isinstance(weight, nn.Parameter):
            self.weight, self.packed = weight, None
        else:
            self.weight, self.packed = None, weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed is None:
            y = F.linear(x, self.weight, self.bias)  # type: ignore[arg-type]
        else:
            y = self.packed.multiply(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], self.packed.shape[0])
            y = y if self.bias is None else y + self.bias
        adapter = self.adapter  # once: another thread may take it away
        return y if adapter is None else adapter(x, y)
