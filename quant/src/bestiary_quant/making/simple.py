"""Making the first types of ggml, whose layouts are in `bestiary_quant.blocks.simple`.

Without importance the steps of ggml-quants.c (`quantize_row_*_ref`), which only round, so that the bytes are the same;
with it, the search of its `quantize_row_*_impl`.  x is [R, C] float32, importance [C].
"""

from __future__ import annotations

import torch

from bestiary_quant.making.columns import codes, columns, divided, peak, rows, total
from bestiary_quant.making.fields import bits, half, nibbles, stored
from bestiary_quant.making.fitting import Steps, ranged, symmetric

_STEPS = Steps(-0.9, 0.05, 36)


def q4_0(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    step, q = _symmetric(x, importance, 8)
    return torch.cat((half(step), nibbles(q, 16)), 1)


def q5_0(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    step, q = _symmetric(x, importance, 16)
    return torch.cat((half(step), _five(q)), 1)


def q4_1(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    step, low, q = _ranged(x, importance, 15)
    return torch.cat((half(step), half(low), nibbles(q, 16)), 1)


def q5_1(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    step, low, q = _ranged(x, importance, 31)
    return torch.cat((half(step), half(low), _five(q)), 1)


def q8_0(x: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    step, q = _eight(x)
    return torch.cat((half(step), rows(q, torch.int8)), 1)


def q8_1(x: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    step, q = _eight(x)
    sums = half(step * q.sum((0, 1)))  # whole numbers, whose sum is exact in any order
    return torch.cat((half(step), sums, rows(q, torch.int8)), 1)


def _eight(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps [N], and codes [32, 1, N] in [-127, 127], of which halves are rounded away from zero."""
    x = columns(x, 32, 32)
    step = x.abs().amax((0, 1)) / 127
    scaled = x * divided(1.0, step)
    size = scaled.abs()
    whole = size.floor()
    return step, (whole + (size - whole >= 0.5)).copysign_(scaled)


def _symmetric(x: torch.Tensor, importance: torch.Tensor | None, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps [N] and codes [N, 32] that count from -levels."""
    blocks = columns(x, 32, 32)
    if importance is not None:
        step = symmetric(blocks, _weights(blocks, x, importance), levels)
        return step[0], rows(codes(blocks, stored(step), -levels, levels - 1) + levels)
    step = peak(blocks) / -levels
    # A product and a sum in one rounding, as processors with fused arithmetic have it.
    shifted = blocks.double().mul_(divided(1.0, step)).add_(levels + 0.5).float()
    return step[0], rows(shifted.trunc_().clamp_(max=2 * levels - 1))


def _ranged(
    x: torch.Tensor, importance: torch.Tensor | None, levels: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Steps [N], minima [N] and codes [N, 32]."""
    blocks = columns(x, 32, 32)
    if importance is not None:
        step, minimum = ranged(blocks, _weights(blocks, x, importance), levels, _STEPS)
        low = -minimum
        return step[0], low[0], rows(codes(blocks - stored(low), stored(step), 0, levels))
    low = blocks.amin(0)
    step = (blocks.amax(0) - low) / levels
    shifted = (blocks - low).mul_(divided(1.0, step)).add_(0.5)
    return step[0], low[0], rows(shifted.trunc_().clamp_(max=levels))


def _weights(blocks: torch.Tensor, x: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    """Large numbers weigh more, and the more so the larger they are beside those of their row."""
    count = x.shape[1] // 32
    square = total(total(blocks.square()).view(-1, count).T.contiguous()) / x.shape[1]
    squares = blocks.square().add_(square.repeat_interleave(count))
    return squares.sqrt_().mul_(columns(importance.expand_as(x), 32, 32))


def _five(q: torch.Tensor) -> torch.Tensor:
    """The fifth bits [N, 4 bytes] before the other four [N, 16 bytes]."""
    return torch.cat((bits(q >> 4), nibbles(q & 15, 16)), 1)
