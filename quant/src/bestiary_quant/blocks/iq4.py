"""Four-bit numbers on a curve: 16 levels that lie closer around zero, where most weights are.

Layouts after `block_iq4_nl` and `block_iq4_xs` of ggml-common.h; d is a 16-bit float, v the table of levels.

    IQ4_NL  d, 32 x 4 bits                                    x = d v[q]
    IQ4_XS  d, 8 x bits 4-5 of s, 8 x 4 bits of s, 256 x 4    groups of 32: x = d (s - 32) v[q]
"""

from __future__ import annotations

from functools import lru_cache

import torch

from bestiary_quant.blocks.fields import half, nibbles, spread

_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""`kvalues_iq4nl` of ggml-common.h."""


def iq4_nl(blocks: torch.Tensor) -> torch.Tensor:
    return _levels(blocks.device)[nibbles(blocks[:, 2:], 16).int()] * half(blocks[:, :2])


def iq4_xs(blocks: torch.Tensor) -> torch.Tensor:
    high = spread(blocks[:, 2:4], (0, 2, 4, 6), 3, 1).flatten(1)
    scales = half(blocks[:, :2]) * ((nibbles(blocks[:, 4:8], 1) | (high << 4)).float() - 32)
    levels = _levels(blocks.device)[nibbles(blocks[:, 8:], 16).int()]
    return (levels.view(-1, 8, 32) * scales[..., None]).flatten(1)


@lru_cache(maxsize=8)
def _levels(device: torch.device) -> torch.Tensor:
    return torch.tensor(_LEVELS, dtype=torch.float32, device=device)
