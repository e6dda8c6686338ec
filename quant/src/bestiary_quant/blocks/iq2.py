"""Two-bit types on a lattice: eight numbers at a time are a point of a table, with signs.

Layouts after `block_iq2_*` of ggml-common.h; d is a 16-bit float, s a 4-bit scale, and x = d (s + 0.5) / 4 point sign.

    IQ2_XXS  d, 8 x (4 points of 8 bits, 4 signs of 7 bits, s)       groups of 32
    IQ2_XS   d, 32 x (point of 9 bits, sign of 7 bits), 16 x s       groups of 16
    IQ2_S    d, 32 x 8 low bits of a point, 32 x 8 signs, 32 x 2 high bits, 16 x s
"""

from __future__ import annotations

import torch

from bestiary_quant.blocks.fields import bits, half, nibbles, spread, words
from bestiary_quant.blocks.grids import grid, signs


def iq2_xxs(blocks: torch.Tensor) -> torch.Tensor:
    groups = blocks[:, 2:].reshape(-1, 8, 8)
    word = words(groups[..., 4:], torch.int32)
    places = torch.tensor((0, 7, 14, 21), dtype=torch.int32, device=blocks.device)
    points = grid("IQ2_XXS", blocks.device)[groups[..., :4].int()] * signs(blocks.device)[(word >> places) & 127]
    scales = half(blocks[:, :2]) * (((word >> 28) & 15)[..., 0] + 0.5) * 0.25
    return (points * scales[..., None, None]).flatten(1)


def iq2_xs(blocks: torch.Tensor) -> torch.Tensor:
    codes = words(blocks[:, 2:66], torch.int16).int()
    points = grid("IQ2_XS", blocks.device)[codes & 511] * signs(blocks.device)[(codes >> 9) & 127]
    return _scaled(points, blocks[:, 66:74], blocks)


def iq2_s(blocks: torch.Tensor) -> torch.Tensor:
    high = spread(blocks[:, 66:74], (0, 2, 4, 6), 3, 1).flatten(1).int()
    points = grid("IQ2_S", blocks.device)[blocks[:, 2:34].int() | (high << 8)]
    points = points * (1.0 - 2.0 * bits(blocks[:, 34:66]).view(-1, 32, 8))
    return _scaled(points, blocks[:, 74:82], blocks)


def _scaled(points: torch.Tensor, scales: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """points [N, 32, 8] with a 4-bit scale for each 16 numbers."""
    factors = half(blocks[:, :2]) * (nibbles(scales, 1) + 0.5) * 0.25
    return (points.view(-1, 16, 16) * factors[..., None]).flatten(1)
