"""HQQ: half-quadratic quantization (Badri and Shaji 2023, https://mobiusml.github.io/hqq_blog/).

The scale of a group comes from its ends; then its zero, which is not a whole number, is moved step by step to where the
sum of |error|^0.7 is least, so that a few outliers count for little.  The parameters are those of the authors' package
(https://github.com/mobiusml/hqq) and of mistral.rs.  Those stop when the mean error of a whole tensor grows; here each
group keeps the best of its zeros.
"""

from __future__ import annotations

import torch

from bestiary_quant.checkpoints.bits import pack
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.making.panels import compact, panels

GROUP = 64
_NORM, _BETA, _GROWTH, _ROUNDS = 0.7, 10.0, 1.01, 20


def hqq(x: torch.Tensor, bits: int) -> CodedMatrix:
    """x [out, in] of any float type, `in` a multiple of 64.

    A group is 64 numbers of a column, from rows that lie a 64th of the matrix apart, as in mistral.rs (axis 0); where
    `out` is no multiple of 64 it is 64 neighbours of a row (axis 1).
    """
    out, columns = x.shape
    if out % GROUP:

        def along(panel: torch.Tensor) -> tuple[torch.Tensor, ...]:
            groups = panel.view(len(panel), -1, GROUP).permute(2, 0, 1).contiguous()
            codes, scales, offsets = solved(groups, bits)
            return pack(codes.permute(1, 2, 0).flatten(1), bits), scales, offsets

        data, scales, offsets = panels(x, along)
        scales, offsets = compact(bits, scales, offsets)
        return CodedMatrix(Codes(data, bits, columns), Scaling(scales, GROUP, offsets=offsets))
    count = out // GROUP

    def across(panel: torch.Tensor) -> tuple[torch.Tensor, ...]:
        codes, scales, offsets = solved(panel.transpose(0, 1).contiguous(), bits)
        return pack(codes.flatten(0, 1), bits).view(GROUP, len(panel), -1).transpose(0, 1), scales, offsets

    data, scales, offsets = panels(x.view(GROUP, count, columns).transpose(0, 1), across)
    band = torch.arange(out, device=x.device) % count
    data = data.transpose(0, 1).flatten(0, 1)
    scales, offsets = compact(bits, scales, offsets)
    return CodedMatrix(Codes(data, bits, columns), Scaling(scales, 1, offsets=offsets, band=band))


def solved(x: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Groups [64, ...] -> codes [64, ...] uint8, scales and offsets [...]."""
    levels = (1 << bits) - 1
    low = x.amin(0)
    inverse = levels / (x.amax(0) - low)
    inverse = torch.where(inverse.isfinite(), inverse, 1.0)
    zero = -low * inverse
    scaled = x * inverse
    best_zero, best, beta = zero, torch.full_like(zero, torch.inf), _BETA
    for _ in range(_ROUNDS):
        q = (scaled + zero).round_().clamp_(0, levels)
        error = x - (q - zero) / inverse
        size = error.abs()
        mean = size.mean(0)
        best_zero, best = torch.where(mean < best, zero, best_zero), torch.minimum(mean, best)
        shrunk = (size - size.pow(_NORM - 1) / beta).clamp_(min=0).copysign_(error)
        zero = (q - (x - shrunk) * inverse).mean(0)
        beta *= _GROWTH
    q = (scaled + best_zero).round_().clamp_(0, levels)
    return q.to(torch.uint8), 1 / inverse, -best_zero / inverse
