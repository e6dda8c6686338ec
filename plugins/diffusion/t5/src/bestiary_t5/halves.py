"""What keeps the encoder finite in float16, whose largest number is 65504.

The large T5 were trained in bfloat16, and the sums that run through their layers go beyond that.  So with weights in
float16 these sums are float32, and what is added to them is multiplied at a size at which nothing is lost: nothing is
clamped.  In other types these functions do nothing of their own.
"""

import torch

from bestiary.nn import Linear, RMSNorm
from bestiary.nn.operations import PLAIN


def sums(x: torch.Tensor) -> torch.Tensor:
    """x in the type in which layers are to be added to it."""
    return x.float() if x.dtype == torch.float16 else x


def normed(norm: RMSNorm, x: torch.Tensor) -> torch.Tensor:
    """The norm of such sums, in the type of its weight."""
    if norm.weight.dtype != torch.float16:
        return norm(x)  # type: ignore[no-any-return]
    return PLAIN.rms_norm(x, norm.weight.float(), norm.eps, norm.offset).half()


def unbounded(layer: Linear, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """layer(x), which computes in `dtype`; where that is float16 the result is float32, and x may be."""
    if dtype != torch.float16:
        return layer(x)  # type: ignore[no-any-return]
    # Each row times the power of two that makes its largest number at most one: exact, and undone after the product.
    _, exponent = torch.frexp(x.float().abs().amax(-1, keepdim=True))
    return torch.ldexp(layer(torch.ldexp(x.float(), -exponent).half()).float(), exponent)
