"""The blocks that no type of today has, and the order of 4-bit numbers in the oldest files.

Layouts after `block_q*` of ggml.c of llama.cpp as of May 2023; d and m are 16-bit floats, D and M 32-bit ones.

    Q4_0_F32  D, 32 x 4 bits         x = D (q - 8)
    Q4_1_F32  D, M, 32 x 4 bits      x = D q + M
    Q8_0_F32  D, 32 x 8 bits signed  x = D q
    Q4_2      d, 16 x 4 bits         x = d (q - 8)
    Q4_3      d, m, 16 x 4 bits      x = d q + m

Their float32 scales have no exact 16-bit form, so that they stay what they are: nothing is rounded.
"""

from __future__ import annotations

import torch

from bestiary_quant.blocks.fields import half, nibbles, words


def q4_0_f32(blocks: torch.Tensor) -> torch.Tensor:
    return nibbles(blocks[:, 4:], 16).float().sub_(8) * words(blocks[:, :4], torch.float32)


def q4_1_f32(blocks: torch.Tensor) -> torch.Tensor:
    return nibbles(blocks[:, 8:], 16) * words(blocks[:, :4], torch.float32) + words(blocks[:, 4:8], torch.float32)


def q8_0_f32(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 4:].view(torch.int8) * words(blocks[:, :4], torch.float32)


def q4_2(blocks: torch.Tensor) -> torch.Tensor:
    return nibbles(blocks[:, 2:], 8).float().sub_(8) * half(blocks[:, :2])


def q4_3(blocks: torch.Tensor) -> torch.Tensor:
    return nibbles(blocks[:, 4:], 8) * half(blocks[:, :2]) + half(blocks[:, 2:4])


def halved(blocks: torch.Tensor, first: int) -> torch.Tensor:
    """Blocks [N, bytes] whose bytes from `first` on hold neighbours (0, 1), (2, 3) ... -> the same numbers in halves.

    A copy in which byte i holds number i and, in its high half, that half a block further on.  No bit is lost: the
    fifth bits of Q5 were in order already.
    """
    numbers = nibbles(blocks[:, first:], 1)
    low, high = numbers.chunk(2, dim=1)
    return torch.cat((blocks[:, :first], low | (high << 4)), 1)
