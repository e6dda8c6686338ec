"""The first types of ggml: a scale, and in some a minimum, for each block.

Layouts after `block_q*` of ggml-common.h; d and m are 16-bit floats, and of 4-bit numbers byte i holds number i in its
low half and number i + 16 in its high one.

    Q1_0  d, 128 bits               x = d for a bit that is set, -d for one that is not
    Q4_0  d, 32 x 4 bits            x = d (q - 8)
    Q4_1  d, m, 32 x 4 bits         x = d q + m
    Q5_0  d, 32 x bit 4, 32 x 4     x = d (q - 16)
    Q5_1  d, m, 32 x bit 4, 32 x 4  x = d q + m
    Q8_0  d, 32 x 8 bits signed     x = d q
    Q8_1  d, s, 32 x 8 bits signed  x = d q; s is d times the sum of all q
"""

from __future__ import annotations

import torch

from bestiary_quant.blocks.fields import bits, half, nibbles


def q1_0(blocks: torch.Tensor) -> torch.Tensor:
    return bits(blocks[:, 2:]).float().mul_(2).sub_(1) * half(blocks[:, :2])


def q4_0(blocks: torch.Tensor) -> torch.Tensor:
    return nibbles(blocks[:, 2:], 16).float().sub_(8) * half(blocks[:, :2])


def q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return nibbles(blocks[:, 4:], 16) * half(blocks[:, :2]) + half(blocks[:, 2:4])


def q5_0(blocks: torch.Tensor) -> torch.Tensor:
    return _five(blocks[:, 2:]).float().sub_(16) * half(blocks[:, :2])


def q5_1(blocks: torch.Tensor) -> torch.Tensor:
    return _five(blocks[:, 4:]) * half(blocks[:, :2]) + half(blocks[:, 2:4])


def q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 2:].view(torch.int8) * half(blocks[:, :2])


def q8_1(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 4:].view(torch.int8) * half(blocks[:, :2])


def _five(part: torch.Tensor) -> torch.Tensor:
    """The fifth bits [4 bytes] before the other four [16 bytes]."""
    return nibbles(part[:, 4:], 16) | (bits(part[:, :4]) << 4)
