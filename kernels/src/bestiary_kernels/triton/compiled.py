"""The product with a packed weight as torch knows it, so that torch.compile can trace a model that has some.

`torch.ops.bestiary_triton` has it with a fake implementation, which gives shapes without computing.  Eager code calls
the kernels directly, which is cheaper than a call through torch's dispatcher.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bestiary_kernels.triton.devices import on_device_of, takes
from bestiary_kernels.triton.linear import linear
from bestiary_kernels.triton.weight import Weight


@torch.library.custom_op("bestiary_triton::linear", mutates_args=())
def _linear(
    x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None, format: str
) -> torch.Tensor:
    weight = Weight(format, codes, scales, addends)
    if not takes(x):
        return F.linear(x, weight.dequantize(x.dtype))
    with on_device_of(x):
        return linear(x, weight)


@_linear.register_fake
def _shape(
    x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None, format: str
) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], codes.shape[0]))
