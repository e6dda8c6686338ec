"""AWQ: columns of large inputs are made large before they are rounded, and what gives the inputs smaller.

Lin et al. 2023, https://arxiv.org/abs/2306.00978: scales are mean|x|^alpha, alpha the best of a grid; then each group's
range is shrunk to where the error of its outputs is least.  Grids and normalisation are those of the authors' package
(https://github.com/mit-han-lab/llm-awq, `auto_scale.py` and `auto_clip.py`); errors are those of the outputs of the
weights themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bestiary_quant.calibration.grid import Grid, coded, grid_for
from bestiary_quant.checkpoints.coded import CodedMatrix

ALPHAS = 20
SHRINKS = 10
"""Ranges that are tried: 1, 0.95, ... of the whole."""
ROWS = 512
"""Inputs that are kept."""
_PANEL = 1 << 22


class Sample:
    """The mean sizes of inputs by column, and some of the inputs: evenly spaced over all that came."""

    def __init__(self, columns: int, limit: int = ROWS) -> None:
        self.columns, self.limit, self.count = columns, limit, 0
        self._sum: torch.Tensor | None = None
        self._kept: list[torch.Tensor] = []
        self._every, self._held = 1, 0

    def add(self, x: torch.Tensor, expert: int | None = None) -> None:
        """x [T, in] of any float type."""
        size = x.float().abs().sum(0).cpu().double()
        self._sum = size if self._sum is None else self._sum + size
        chosen = x[-self.count % self._every :: self._every].float()
        self._kept.append(chosen)
        self._held += len(chosen)
        self.count += len(x)
        while self._held > self.limit:
            self._kept = [torch.cat(self._kept)[::2].clone()]
            self._held, self._every = len(self._kept[0]), 2 * self._every

    def mean(self) -> torch.Tensor:
        """mean|x| [in] in float32; ones where no row came."""
        return torch.ones(self.columns) if self._sum is None else (self._sum / self.count).float()

    def rows(self) -> torch.Tensor:
        """Some of the inputs [at most the limit, in] in float32."""
        return torch.cat(self._kept) if self._kept else torch.zeros((0, self.columns))


@dataclass(frozen=True)
class Part:
    """A weight [out, in] that a scale is for, with inputs [R, in] of its own."""

    weight: torch.Tensor
    inputs: torch.Tensor
    group: int


def best_scale(parts: Sequence[Part], size: torch.Tensor, bits: int = 4) -> torch.Tensor:
    """The scale [in] of the columns of all parts by which their outputs change least, from mean|x| [in].

    The first of the grid is all ones, which changes nothing; so the result is never worse than rounding alone.
    """
    best, least = torch.ones_like(size), float("inf")
    wholes = [part.weight.float() for part in parts]
    if not any(len(part.inputs) for part in parts):
        return best
    for step in range(ALPHAS):
        scale = size.clamp(min=1e-12).pow(step / ALPHAS).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        error = 0.0
        for part, whole in zip(parts, wholes, strict=True):
            scaled = whole * scale
            change = grid_for(scaled, bits).nearest(scaled, part.group) / scale - whole
            error += float((part.inputs @ change.T).square().sum(dtype=torch.float64))
        if error < least:
            best, least = scale, error
    return best


def awq(weight: torch.Tensor, inputs: torch.Tensor, group: int, bits: int = 4, *, clip: bool = True) -> CodedMatrix:
    """A weight [out, in] whose columns were scaled already, and inputs [R, in] as they then are.

    `clip` shrinks the range of each group where that helps; the authors leave it out for queries and keys.
    """
    x = weight.float()
    grid = grid_for(x, bits)
    groups = x.shape[1] // group
    scales, zeros = x.new_empty(len(x), groups), x.new_empty(len(x), groups)
    codes = torch.empty_like(x)
    blocks = inputs.float().view(len(inputs), groups, group)
    squares = torch.einsum("rgi,rgj->gij", blocks, blocks)
    step = max(1, _PANEL // x.shape[1])
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        panel = x[part].view(-1, groups, group)
        scale, zero, shrunk = _shrunk(grid, panel, squares if clip and len(inputs) else None)
        scales[part], zeros[part] = scale, zero
        codes[part] = grid.codes(shrunk, scale[..., None], zero[..., None]).view(-1, x.shape[1])
    return coded(grid, codes, scales, zeros, group)


def _shrunk(
    grid: Grid, x: torch.Tensor, squares: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scales and zeros [R, G], and x [R, G, group] cut to their range, by X'X [G, group, group] of the inputs."""
    scale, zero = grid.fit(x)
    if squares is None:
        return scale, zero, x
    best, least = torch.ones_like(scale), torch.full_like(scale, torch.inf)
    farthest = x.abs().amax(-1, keepdim=True)
    for step in range(SHRINKS):
        share = 1 - step / (2 * SHRINKS)
        limit = farthest * share
        cut = torch.clamp(x, -limit, limit)
        tried, zeros = (part[..., None] for part in grid.fit(cut))
        change = (grid.codes(cut, tried, zeros) - zeros).mul_(tried).sub_(x)
        error = (torch.einsum("rgi,gij->rgj", change, squares) * change).sum(-1)
        better = error < least
        best, least = torch.where(better, share, best), torch.where(better, error, least)
    limit = farthest * best[..., None]
    cut = torch.clamp(x, -limit, limit)
    return *grid.fit(cut), cut
