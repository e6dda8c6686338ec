"""Grids of whole numbers with a scale and a zero for each group of columns, and weights as codes on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bestiary_quant.checkpoints.bits import pack
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes, centred
from bestiary_quant.checkpoints.scaling import Scaling

LEAST, MOST = 2.0**-20, 65504.0
"""Between which a 16-bit float is right to a few hundredths, so that a grid of its multiples still covers a group."""


@dataclass(frozen=True)
class Grid:
    """w = (code - zero) * scale with codes in [0, 2^bits)."""

    bits: int
    symmetric: bool = False
    """The zero is the middle code, 2^(bits - 1)."""
    kind: torch.dtype = torch.float16
    """Of scales as they are stored; codes are chosen for the scales as stored."""

    @property
    def top(self) -> int:
        return (1 << self.bits) - 1

    def fit(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The scale and the zero, [...] each, that cover x [..., group] and 0 (`Quantizer.find_params` of GPTQ)."""
        low, high = x.amin(-1).clamp(max=0), x.amax(-1).clamp(min=0)
        if self.symmetric:
            high = torch.maximum(high, -low)
            low = -high
        scale = self.stored((high - low) / self.top)
        if self.symmetric:
            return scale, torch.full_like(scale, 1 << self.bits - 1)
        return scale, (-low / scale).round_().clamp_(0, self.top)

    def stored(self, scale: torch.Tensor) -> torch.Tensor:
        """Scales as they come back from their type; 1 for those of zeros alone."""
        least = LEAST if self.kind == torch.float16 else torch.finfo(torch.float32).tiny
        return torch.where(scale > 0, scale.clamp(min=least), 1.0).to(self.kind).to(scale.dtype)

    def codes(self, x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        """The nearest codes, as numbers of the type of x."""
        return (x / scale + zero).round_().clamp_(0, self.top)

    def nearest(self, x: torch.Tensor, group: int) -> torch.Tensor:
        """x [out, in] as numbers on its own grid."""
        blocks = x.view(len(x), -1, group)
        scale, zero = (part[..., None] for part in self.fit(blocks))
        return (self.codes(blocks, scale, zero) - zero).mul_(scale).view(x.shape)


def grid_for(x: torch.Tensor, bits: int, symmetric: bool = False) -> Grid:
    """With scales of 16 bits, or of 32 where the numbers of a weight are too large or too small for those."""
    rows = x.abs().amax(-1)
    rows = rows[rows > 0] / ((1 << bits) - 1)
    fits = not rows.numel() or (float(rows.amin()) > 16 * LEAST and float(rows.amax()) * 4 < MOST)
    return Grid(bits, symmetric, torch.float16 if fits else torch.float32)


def coded(
    grid: Grid,
    codes: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    group: int,
    order: torch.Tensor | None = None,
) -> CodedMatrix:
    """Codes [out, in], scales and zeros [out, groups], and the group of each column where they do not follow."""
    data = pack(codes.to(torch.uint8), grid.bits)
    table = centred(grid.bits) if grid.symmetric else None
    zero = None if grid.symmetric else zeros.to(torch.uint8)
    return CodedMatrix(
        Codes(data, grid.bits, codes.shape[1], table), Scaling(scales.to(grid.kind), group, zeros=zero, order=order)
    )


def rounded(x: torch.Tensor, bits: int, group: int, symmetric: bool = False) -> CodedMatrix:
    """A weight [out, in] rounded to nearest: what GPTQ and AWQ have to be better than."""
    grid = grid_for(x, bits, symmetric)
    blocks = x.float().view(len(x), -1, group)
    scale, zero = grid.fit(blocks)
    codes = grid.codes(blocks, scale[..., None], zero[..., None]).view(x.shape)
    return coded(grid, codes, scale, zero, group)
