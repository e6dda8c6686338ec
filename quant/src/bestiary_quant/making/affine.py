"""AFQ: groups of a row with a scale and an offset, as MLX quantises them.

The layout and the arithmetic are those of `mx.quantize` in its mode "affine" (https://github.com/ml-explore/mlx): codes
in a string of bits, x = s q + b.  The end of a group that is farther from zero is met exactly, and zero too.
"""

from __future__ import annotations

import torch

from bestiary_quant.checkpoints.bits import pack
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.making.columns import columns, rows
from bestiary_quant.making.panels import compact, panels

_LEAST = 1e-7


def afq(x: torch.Tensor, bits: int) -> CodedMatrix:
    """x [out, in] of any float type, in groups of 64 as in mistral.rs, or of 32 where `in` is no multiple of 64."""
    group = 64 if x.shape[1] % 64 == 0 else 32
    data, scales, offsets = panels(x, lambda panel: affine(panel, bits, group))
    scales, offsets = compact(bits, scales, offsets)
    return CodedMatrix(Codes(data, bits, x.shape[1]), Scaling(scales, group, offsets=offsets))


def affine(x: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x [R, C] float32 -> data [R, C * bits / 8] uint8, scales and offsets [R, C / group] float32."""
    blocks = columns(x, group, group)[:, 0]
    low, high = blocks.amin(0), blocks.amax(0)
    step = ((high - low) / ((1 << bits) - 1)).clamp_(min=_LEAST)
    below = low.abs() > high.abs()
    step, edge = torch.where(below, step, -step), torch.where(below, low, high)
    code = (edge / step).round_()
    step = torch.where(code == 0, step, edge / code)
    offset = torch.where(code == 0, 0.0, edge)
    q = ((blocks - offset) / step).round_().clamp_(0, (1 << bits) - 1)
    codes = rows(q[:, None]).view(x.shape)
    return pack(codes, bits), step.view(len(x), -1), offset.view(len(x), -1)
