"""Making MXFP4, whose layout is in `bestiary_quant.blocks.float4`, as ggml-quants.c does (`quantize_row_mxfp4_ref`)."""

from __future__ import annotations

import torch

from bestiary_quant.making.columns import columns, rows
from bestiary_quant.making.fields import nibbles

_BETWEEN = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
"""Half way between 0, 0.5, 1, 1.5, 2, 3, 4 and 6."""


def mxfp4(x: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    """x [R, C] float32 -> bytes; the largest number of a block comes to lie between 4 and 8, where 6 is the last."""
    blocks = columns(x, 32, 32)
    largest = blocks.abs().amax((0, 1))
    exponent = (torch.frexp(largest).exponent - 3).clamp(-127, 127)  # frexp counts from a half
    half = exponent // 2  # in two factors, for 2^-127 has no reciprocal in float32
    scaled = blocks * _power(-half) * _power(half - exponent)
    between = torch.tensor(_BETWEEN, device=x.device)
    size = torch.bucketize(scaled.abs(), between, out_int32=True)  # half way between two numbers it is the smaller one
    q = rows(size + 8 * ((scaled < 0) & (size > 0)))
    code = torch.where(largest > 0, exponent + 127, 0).to(torch.uint8)
    return torch.cat((code[:, None], nibbles(q, 16)), 1)


def _power(exponent: torch.Tensor) -> torch.Tensor:
    """2^n for n in [-126, 127], exactly."""
    return ((exponent + 127) << 23).view(torch.float32)
