"""Three-bit types on a lattice: four numbers at a time are a point of a table, with signs.

Layouts after `block_iq3_*` of ggml-common.h; d is a 16-bit float and s a 4-bit scale of a group of 32.

    IQ3_XXS  d, 64 points of 8 bits, 8 x (4 signs of 7 bits, s)    x = d (s + 0.5) / 2 point sign
    IQ3_S    d, 64 x 8 low bits of a point, 64 x bit 8, 256 x sign, 8 x s    x = d (2 s + 1) point sign
"""

from __future__ import annotations

import torch

from bestiary_quant.blocks.fields import bits, half, nibbles, words
from bestiary_quant.blocks.grids import grid, signs


def iq3_xxs(blocks: torch.Tensor) -> torch.Tensor:
    word = words(blocks[:, 66:98], torch.int32)
    places = torch.tensor((0, 7, 14, 21), dtype=torch.int32, device=blocks.device)
    points = grid("IQ3_XXS", blocks.device)[blocks[:, 2:66].int()].view(-1, 8, 4, 8)
    points = points * signs(blocks.device)[(word[..., None] >> places) & 127]
    scales = half(blocks[:, :2]) * (((word >> 28) & 15) + 0.5) * 0.5
    return (points * scales[..., None, None]).flatten(1)


def iq3_s(blocks: torch.Tensor) -> torch.Tensor:
    points = grid("IQ3_S", blocks.device)[blocks[:, 2:66].int() | (bits(blocks[:, 66:74]).int() << 8)]
    points = points.view(-1, 8, 32) * (1.0 - 2.0 * bits(blocks[:, 74:106]).view(-1, 8, 32))
    scales = half(blocks[:, :2]) * (nibbles(blocks[:, 106:110], 1) * 2.0 + 1.0)
    return (points * scales[..., None]).flatten(1)
