"""INT8: whole numbers in [-127, 127] with one scale for each row, the largest size over 127."""

from __future__ import annotations

import torch

from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.making.columns import codes
from bestiary_quant.making.panels import panels


def int8(x: torch.Tensor) -> CodedMatrix:
    """x [out, in] of any float type."""
    data, scales = panels(x, _rounded)
    return CodedMatrix(Codes(data, 8, x.shape[1]), Scaling(scales, x.shape[1]))


def _rounded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = x.abs().amax(1, keepdim=True) / 127
    return codes(x, scale, -127, 127).to(torch.int8), scale
