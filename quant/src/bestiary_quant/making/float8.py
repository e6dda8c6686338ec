"""FP8: 8-bit floats (e4m3) with a scale for the whole weight, or for each block of 128 x 128, as DeepSeek-V3 has it.

A scale is the largest size over 448, so that no number is beyond the type; published checkpoints call it
`weight_scale_inv`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.making.columns import divided
from bestiary_quant.making.panels import panels

BLOCK = 128
LARGEST = 448.0
_TYPE = torch.float8_e4m3fn


def fp8(x: torch.Tensor) -> CodedMatrix:
    """x [out, in] of any float type, with one scale."""
    out, columns = x.shape
    low, high = torch.aminmax(x)
    inverse = divided(LARGEST, torch.maximum(high, -low).float())
    (data,) = panels(x, lambda panel: (_rounded(panel * inverse),))
    band = torch.zeros(out, dtype=torch.int64, device=x.device)
    return CodedMatrix(Codes(data, 8, columns), Scaling(divided(1.0, inverse).view(1, 1), columns, band=band))


def fp8_blocks(x: torch.Tensor) -> CodedMatrix:
    """x [out, in] of any float type, with a scale for each block; those at the edges may be smaller."""
    out, columns = x.shape
    height, width = -(-out // BLOCK), -(-columns // BLOCK)
    data = torch.empty((out, columns), dtype=_TYPE, device=x.device)
    scales = torch.empty((height, width), device=x.device)
    for number in range(height):
        part = slice(number * BLOCK, (number + 1) * BLOCK)
        block = x[part].float()
        sizes = F.pad(block.abs().amax(0), (0, width * BLOCK - columns))
        inverse = divided(LARGEST, sizes.view(width, BLOCK).amax(1))
        scales[number] = divided(1.0, inverse)
        data[part] = _rounded(block * inverse.repeat_interleave(BLOCK)[:columns])
    band = torch.arange(out, device=x.device) // BLOCK
    return CodedMatrix(Codes(data, 8, columns), Scaling(scales, BLOCK, band=band))


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """The nearest 8-bit floats; beyond the largest one there is none, but NaN."""
    return x.clamp(-LARGEST, LARGEST).to(_TYPE)
