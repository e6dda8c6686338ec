"""Making four-bit numbers on a curve, whose layouts are in `bestiary_quant.blocks.iq4`.

The search is that of `quantize_row_iq4_nl_impl` in ggml-quants.c.  x is [R, C] float32, importance [C].
"""

from __future__ import annotations

from functools import lru_cache

import torch

from bestiary_quant.making.columns import codes, columns, divided, peak, rows, total
from bestiary_quant.making.fields import PAIRS, half, joined, nibbles

_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""`kvalues_iq4nl` of ggml-common.h."""
_REACH = 128
"""No level, and no half way between two, is as far from zero."""


def iq4_nl(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    blocks = columns(x, 32, 32)
    d = _fitted(blocks, x, importance)
    q = rows(_nearest(blocks * divided(1.0, d), "code"))
    return torch.cat((half(d[0]), nibbles(q, 16)), 1)


def iq4_xs(x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    blocks = columns(x, 32, 256)
    scale = _fitted(blocks, x, importance)
    d = peak(scale) / -32
    s = codes(scale, d, -32, 31)
    q = rows(_nearest(blocks * divided(1.0, d * s), "code"))
    s = rows(s[None] + 32)
    parts = (half(d), joined(s >> 4, PAIRS, 1), nibbles(s & 15, 1), nibbles(q, 16))
    return torch.cat(parts, 1)


def _fitted(blocks: torch.Tensor, x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    """The best scales [G, N] of groups [32, G, N]."""
    weights = blocks.square()
    if importance is not None:
        square = total(total(weights)) * (2.0 / (len(blocks) * blocks.shape[1]))
        weights = (blocks.square() + square).sqrt_().mul_(columns(importance.expand_as(x), 32, 32 * blocks.shape[1]))
    weighted = weights * blocks
    top = peak(blocks)
    scale, best = torch.zeros_like(top), torch.zeros_like(top)
    for reach in (127, *range(-134, -119)):
        level = _nearest(blocks * divided(float(reach), top), "level")
        products, squares = total(weighted * level), total(weights * level * level)
        new = products / squares
        gain = new * products
        scale, best = torch.where(gain > best, new, scale), torch.where(gain > best, gain, best)
    return scale


def _nearest(x: torch.Tensor, what: str) -> torch.Tensor:
    """The level nearest to each number, or its code; half way between two it is the upper one.

    Where one level ends and the next begins is a whole or a half number, so the doubled number finds it in a table.
    """
    place = (x * 2).floor_().clamp_(-2 * _REACH, 2 * _REACH - 1).add_(2 * _REACH).int()
    return torch.index_select(_table(what, x.device), 0, place.flatten()).view(x.shape)


@lru_cache(maxsize=16)
def _table(what: str, device: torch.device) -> torch.Tensor:
    levels = torch.tensor(_LEVELS, dtype=torch.float32, device=device)
    places = torch.arange(-2 * _REACH, 2 * _REACH, device=device) / 2
    found = torch.bucketize(places, (levels[1:] + levels[:-1]) / 2, right=True)
    return levels[found] if what == "level" else found.to(torch.uint8)
