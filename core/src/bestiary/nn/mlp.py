"""Feed-forward blocks."""

import torch
from torch import nn

from bestiary.nn.activation import activation
from bestiary.nn.linear import Linear, together
from bestiary.nn.operations import PLAIN


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)) for x [T, D] (Shazeer 2020, GLU variants)."""

    ops = PLAIN

    def __init__(self, dim: int, hidden: int, act: str = "silu", bias: bool = False) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = Linear(dim, hidden, bias), Linear(dim, hidden, bias)
        self.down_proj, self.act, self.name = Linear(hidden, dim, bias), activation(act), act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = together(x, self.gate_proj, self.up_proj)
        return self.down_proj(self.ops.gated(gate, up, self.name))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """down(act(up(x))) for x [T, D]; maps rename the family's own names (fc1, c_fc) to these."""

    def __init__(self, dim: int, hidden: int, act: str = "gelu", bias: bool = True) -> None:
        super().__init__()
        self.up_proj, self.down_proj, self.act = Linear(dim, hidden, bias), Linear(hidden, dim, bias), activation(act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act(self.up_proj(x)))  # type: ignore[no-any-return]
