"""Making the k-quants, whose layouts are in `bestiary_quant.blocks.kquants`.

A block of 256 numbers gets its scales in two steps: the best scale of each group, then one scale for the block, of
which the groups keep small multiples.  The searches are those of ggml-quants.c: `quantize_row_*_ref` without
importance, `quantize_row_*_impl` with it.  x is [R, C] float32, importance [C].
"""

from __future__ import annotations

import torch

from bestiary_quant.making.columns import codes, columns, divided, peak, rows, total
from bestiary_quant.making.fields import PAIRS, half, joined, nibbles, stored
from bestiary_quant.making.fitting import Steps, positive, ranged, refined, symmetric

_WEIGHTED_STEPS = Steps(-0.9, 0.05, 36)


def q2_k(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    blocks = columns(x, 16, 256)
    if importance is None:
        scale, minimum = ranged(blocks, blocks.abs(), 3, Steps(-0.5, 0.1, 15), absolute=True)
        weight = None
    else:
        weights = _weights(blocks, x, importance, 1.0)
        scale, minimum = ranged(blocks, weights, 3, _WEIGHTED_STEPS)
        weight = total(weights)
    d, s, m, n, q = _two_levels(blocks, scale, minimum, weight, 15, 3)
    return torch.cat((s | (n << 4), joined(q, PAIRS, 32), half(d), half(m)), 1)


def q4_k(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    head, q = _four_or_five(x, importance, 15, Steps(-1.0, 0.1, 20))
    return torch.cat((head, nibbles(q, 32)), 1)


def q5_k(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    head, q = _four_or_five(x, importance, 31, Steps(-0.5, 0.1, 15))
    return torch.cat((head, joined(q >> 4, range(8), 32), nibbles(q & 15, 32)), 1)


def q3_k(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    blocks = columns(x, 16, 256)
    if importance is None:
        scale = refined(blocks, 4)
        d = peak(scale) / -32
    else:
        weights = _weights(blocks, x, importance, 2.0)
        scale = symmetric(blocks, weights, 4)
        d = symmetric(scale, total(weights), 32)
    s = codes(scale, stored(d), -32, 31)
    q = rows(codes(blocks, stored(d) * s, -4, 3) + 4)
    s = rows(s[None] + 32)
    parts = (
        joined(q >> 2, range(8), 32),
        joined(q & 3, PAIRS, 32),
        nibbles(s & 15, 8),
        joined(s >> 4, PAIRS, 4),
        half(d),
    )
    return torch.cat(parts, 1)


def q6_k(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    blocks = columns(x, 16, 256)
    weights = blocks.square() if importance is None else columns(importance.expand_as(x), 16, 256)
    scale = symmetric(blocks, weights, 32)
    d = peak(scale) / -128
    s = codes(scale, stored(d), -128, 127)
    q = rows(codes(blocks, stored(d) * s, -32, 31) + 32)
    parts = (nibbles(q & 15, 64), joined(q >> 4, PAIRS, 32), rows(s[None], torch.int8), half(d))
    return torch.cat(parts, 1)


def q8_k(x: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    blocks = columns(x, 256, 256)
    inverse = divided(-127.0, peak(blocks)[0])
    q = (blocks * inverse).round_().clamp_(max=127)
    sums = q.view(16, 16, -1).sum(1).T.to(torch.int16)  # whole numbers, whose sum is exact in any order
    d = divided(1.0, inverse)[:, None]
    return torch.cat((_bytes(d), rows(q, torch.int8), _bytes(sums)), 1)


def _four_or_five(
    x: torch.Tensor, importance: torch.Tensor | None, levels: int, steps: Steps
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scales of a block [N, 16 bytes], and codes [N, 256]."""
    blocks = columns(x, 32, 256)
    if importance is None:
        scale, minimum = ranged(blocks, blocks.abs().add_((total(blocks.square()) / 32).sqrt_()), levels, steps)
        weight = None
    else:
        weights = _weights(blocks, x, importance, 2.0)
        scale, minimum = ranged(blocks, weights, levels, _WEIGHTED_STEPS)
        weight = total(weights)
    d, s, m, n, q = _two_levels(blocks, scale, minimum, weight, 63, levels)
    first, second = s[:, :4] | (s[:, 4:] >> 4 << 6), n[:, :4] | (n[:, 4:] >> 4 << 6)
    third = (s[:, 4:] & 15) | ((n[:, 4:] & 15) << 4)
    return torch.cat((half(d), half(m), first, second, third), 1), q


def _two_levels(
    blocks: torch.Tensor,
    scale: torch.Tensor,
    minimum: torch.Tensor,
    weight: torch.Tensor | None,
    multiples: int,
    levels: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """d [N] and the scales s [N, G] of its groups, m [N] and their minima n [N, G], and codes [N, 256].

    `weight` [G, N] says how much each group counts; without it the largest scale of a block decides.
    """
    if weight is None:
        d, m = scale.amax(0) / multiples, minimum.amax(0) / multiples
    else:
        d, m = positive(scale, weight, multiples), positive(minimum, weight, multiples)
    s, n = codes(scale, stored(d), 0, multiples), codes(minimum, stored(m), 0, multiples)
    q = codes(blocks + stored(m) * n, stored(d) * s, 0, levels)
    return d, rows(s[None]), m, rows(n[None]), rows(q)


def _weights(blocks: torch.Tensor, x: torch.Tensor, importance: torch.Tensor, factor: float) -> torch.Tensor:
    """Large numbers weigh more, and the more so the larger they are beside those of their block."""
    square = total(total(blocks.square())) * (factor / 256)
    return (blocks.square() + square).sqrt_().mul_(columns(importance.expand_as(x), len(blocks), 256))


def _bytes(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers [N, K] -> their little-endian bytes [N, K * size]."""
    return numbers.contiguous().view(torch.uint8)
