"""The k-quants: blocks of 256 numbers in groups of 16 or 32, whose scales are packed in turn.

Layouts after `block_q*_K` of ggml-common.h; d and m are 16-bit floats, s and n the scale and the minimum of a group.

    Q2_K  16 x (4-bit s, 4-bit n), 256 x 2 bits, d, m           groups of 16: x = d s q - m n
    Q3_K  256 x bit 2 inverted, 256 x 2 bits, 16 x 6-bit s, d   groups of 16: x = d (s - 32) (q - 4)
    Q4_K  d, m, 8 x (6-bit s, 6-bit n), 256 x 4 bits            groups of 32: x = d s q - m n
    Q5_K  d, m, 8 x (6-bit s, 6-bit n), 256 x bit 4, 256 x 4    groups of 32: x = d s q - m n
    Q6_K  256 x 4 bits, 256 x bits 4-5, 16 x 8-bit s, d         groups of 16: x = d s (q - 32)
    Q8_K  d in 32 bits, 256 x 8 bits, 16 sums of 16             x = d q

The low bits of numbers that lie far apart share a byte: of every 32 bytes (64 in Q6_K) first all lowest fields are
numbers in order, then all the next.
"""

from __future__ import annotations

import torch

from bestiary_quant.blocks.fields import half, nibbles, spread, words

_PAIRS = (0, 2, 4, 6)


def q2_k(blocks: torch.Tensor) -> torch.Tensor:
    scales = blocks[:, :16]
    d, m = half(blocks[:, 80:82]), half(blocks[:, 82:84])
    q = spread(blocks[:, 16:80], _PAIRS, 3, 32).view(-1, 16, 16)
    return (q * (d * (scales & 15))[..., None] - (m * (scales >> 4))[..., None]).flatten(1)


def q3_k(blocks: torch.Tensor) -> torch.Tensor:
    scales = nibbles(blocks[:, 96:104], 8) | (spread(blocks[:, 104:108], _PAIRS, 3, 4).flatten(1) << 4)
    high = spread(blocks[:, :32], range(8), 1, 32).view(-1, 16, 16)
    q = (spread(blocks[:, 32:96], _PAIRS, 3, 32).view(-1, 16, 16) | (high << 2)).float().sub_(4)
    return (q * (half(blocks[:, 108:110]) * (scales.float() - 32))[..., None]).flatten(1)


def q4_k(blocks: torch.Tensor) -> torch.Tensor:
    return _scaled(nibbles(blocks[:, 16:], 32), blocks)


def q5_k(blocks: torch.Tensor) -> torch.Tensor:
    high = spread(blocks[:, 16:48], range(8), 1, 32).flatten(1)
    return _scaled(nibbles(blocks[:, 48:], 32) | (high << 4), blocks)


def q6_k(blocks: torch.Tensor) -> torch.Tensor:
    low, high = nibbles(blocks[:, :128], 64), spread(blocks[:, 128:192], _PAIRS, 3, 32).flatten(1)
    q = (low | (high << 4)).float().sub_(32).view(-1, 16, 16)
    scales = blocks[:, 192:208].view(torch.int8) * half(blocks[:, 208:210])
    return (q * scales[..., None]).flatten(1)


def q8_k(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 4:260].view(torch.int8) * words(blocks[:, :4], torch.float32)


def _scaled(q: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """q [N, 256] with the scales and minima of Q4_K and Q5_K, the first 16 bytes of a block.

    Of the 12 bytes of scales the first four hold s of groups 0 to 3 in their low six bits, the next four n.  The last
    four hold the low halves of s and n of groups 4 to 7, whose upper two bits are those left over in the first eight.
    """
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat((first & 63, (third & 15) | ((first >> 2) & 48)), 1)
    minima = torch.cat((second & 63, (third >> 4) | ((second >> 2) & 48)), 1)
    d, m = half(blocks[:, :2]) * scales, half(blocks[:, 2:4]) * minima
    return (q.view(-1, 8, 32) * d[..., None] - m[..., None]).flatten(1)
