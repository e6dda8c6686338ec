"""One-bit types on a lattice: eight numbers at a time are a point of -1, 0 and 1, moved up or down by an eighth.

Layouts after `block_iq1_*` of ggml-common.h; d is a 16-bit float, s a 3-bit scale, and x = d (2 s + 1) (point +- 1/8).

    IQ1_S  d, 32 x 8 low bits of a point, 8 x (4 x 3 high bits, s, down)            groups of 32
    IQ1_M  32 x 8 low bits, 32 x (3 high bits, down), 4 x (4 x s, 4 bits of d)      groups of 16
"""

from __future__ import annotations

import torch

from bestiary_quant.blocks.fields import half, nibbles, words
from bestiary_quant.blocks.grids import grid

_TRIPLES = (0, 3, 6, 9)


def iq1_s(blocks: torch.Tensor) -> torch.Tensor:
    word = words(blocks[:, 34:50], torch.int16).int()[..., None]  # [N, 8, 1]
    high = (word >> _places(blocks)) & 7
    points = grid("IQ1_S", blocks.device)[blocks[:, 2:34].int() | (high.flatten(1) << 8)].view(-1, 8, 32)
    scales = half(blocks[:, :2])[..., None] * (((word >> 12) & 7) * 2.0 + 1.0)
    return (scales * (points + _shift(word & 0x8000))).flatten(1)


def iq1_m(blocks: torch.Tensor) -> torch.Tensor:
    word = words(blocks[:, 48:56], torch.int16).int()  # [N, 4]
    d = (word[:, 0] >> 12 & 15) | (word[:, 1] >> 8 & 0xF0) | (word[:, 2] >> 4 & 0xF00) | (word[:, 3] & 0xF000)
    scales = d.short().view(torch.float16).float()[:, None, None] * (
        ((word[..., None] >> _places(blocks)) & 7) * 2.0 + 1
    )
    codes = nibbles(blocks[:, 32:48], 1).int()  # [N, 32]
    points = grid("IQ1_M", blocks.device)[blocks[:, :32].int() | ((codes & 7) << 8)]
    return (scales.view(-1, 16, 1, 1) * (points + _shift(codes & 8)[..., None]).view(-1, 16, 2, 8)).flatten(1)


def _places(blocks: torch.Tensor) -> torch.Tensor:
    return torch.tensor(_TRIPLES, dtype=torch.int32, device=blocks.device)


def _shift(down: torch.Tensor) -> torch.Tensor:
    return torch.where(down == 0, 0.125, -0.125)
