"""The linear layer, over a plain tensor or a weight packed in fewer bits."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from bestiary.nn.operations import PLAIN, Held
from bestiary.nn.packed import PackedWeight


class LinearAdapter(Protocol):
    """What adapters add to a linear layer; it knows itself which of them the rows of a step asked for."""

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y [T, out] of the layer, as the adapters of the rows of x [T, in] change it; y may be written to."""


class Linear(nn.Module):
    """y = x W' + b, for x [..., in], where W is a parameter or a packed weight (see `hold`)."""

    ops = PLAIN

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

    @property
    def held(self) -> Held:
        """The weight, as it is held."""
        return self.packed if self.weight is None else self.weight  # type: ignore[return-value]

    @property
    def watched(self) -> bool:
        """Whether somebody stands before the layer's own call: a hook, or a function in its instance's dictionary."""
        return bool(self._forward_pre_hooks or self._forward_hooks or "forward" in self.__dict__)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _multiply(x, (self,))[0]


def together(x: torch.Tensor, *layers: Linear) -> list[torch.Tensor]:
    """What each of several layers makes of the same x [..., in]: read and prepared once for all of them."""
    if any(layer.watched for layer in layers):
        return [layer(x) for layer in layers]
    return _multiply(x, layers)


def _multiply(x: torch.Tensor, layers: Sequence[Linear]) -> list[torch.Tensor]:
    flat = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    made = layers[0].ops.linear(flat, [layer.held for layer in layers], [layer.bias for layer in layers])
    if x.ndim != 2:
        made = [y.view(*x.shape[:-1], y.shape[-1]) for y in made]
    for place, layer in enumerate(layers):
        adapter = layer.adapter  # once: another thread may take it away
        if adapter is not None:
            made[place] = adapter(x, made[place])
    return made
