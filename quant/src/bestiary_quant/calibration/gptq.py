"""GPTQ: rounding column after column, each error made good by the columns that follow.

Frantar, Ashkboos, Hoefler and Alistarh 2022, https://arxiv.org/abs/2210.17323, algorithm 1; damping, the grid and the
order of columns are those of the authors' `gptq.py` and `quant.py` (https://github.com/IST-DASLab/gptq).  Columns whose
inputs are always zero keep their weights here, rounded to nearest; there they become zero.
"""

from __future__ import annotations

import torch

from bestiary_quant.calibration.grid import coded, grid_for
from bestiary_quant.checkpoints.coded import CodedMatrix

BLOCK = 128
"""Columns after which the errors reach the rest of the weight."""
DAMPING = 0.01
"""Of the mean of the Hessian's diagonal, added to it."""


class Hessian:
    """X'X [in, in] of the rows that came, in float32 with the sums of each call in its own precision."""

    def __init__(self, columns: int) -> None:
        self.columns, self.count = columns, 0
        self._sum: torch.Tensor | None = None

    def add(self, x: torch.Tensor, expert: int | None = None) -> None:
        """x [T, in] of any float type."""
        if self._sum is None:
            self._sum = torch.zeros((self.columns, self.columns), dtype=torch.float32, device=x.device)
        rows = x.float()
        self._sum.addmm_(rows.T, rows)
        self.count += len(rows)

    def matrix(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """The sum; zeros where no row came."""
        made = torch.zeros((self.columns, self.columns)) if self._sum is None else self._sum
        return made.to(device)


def gptq(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    bits: int,
    group: int,
    *,
    symmetric: bool = False,
    act_order: bool = False,
    damping: float = DAMPING,
) -> CodedMatrix:
    """weight [out, in] of any float type, and X'X [in, in] of its inputs, in whose type all is computed.

    `group` divides `in` and BLOCK.  A group's scale is fitted when its first column is reached, to the weights as they
    are by then.
    `act_order` begins with the columns of the largest inputs (desc_act); groups are then formed in that order, and
    `Scaling.order` says which column has which (g_idx).
    """
    h = hessian.to(weight.device)
    w = weight.to(h.dtype, copy=True)
    rows, columns = w.shape
    grid = grid_for(w, bits, symmetric)
    order = None
    if act_order:
        order = torch.argsort(h.diagonal(), descending=True, stable=True)
        w, h = w[:, order], h[order][:, order]
    inverse = _inverse(h, damping)
    codes = torch.empty_like(w)
    scales, zeros = w.new_empty(rows, columns // group), w.new_empty(rows, columns // group)
    scale, zero = w.new_ones(rows), w.new_zeros(rows)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        block, errors = w[:, start:stop].T.contiguous(), w.new_empty(stop - start, rows)
        for place, column in enumerate(range(start, stop)):
            if column % group == 0:
                scale, zero = grid.fit(block[place : place + group].T)
                scales[:, column // group], zeros[:, column // group] = scale, zero
            code = grid.codes(block[place], scale, zero)
            codes[:, column] = code
            errors[place] = (block[place] - (code - zero) * scale) / inverse[column, column]
            block[place:].addr_(inverse[column, column:stop], errors[place], alpha=-1)
        w[:, stop:] -= errors.T @ inverse[start:stop, stop:]
    if order is None:
        return coded(grid, codes, scales, zeros, group)
    back = torch.argsort(order)
    return coded(grid, codes[:, back], scales, zeros, group, back // group)


def _inverse(h: torch.Tensor, damping: float) -> torch.Tensor:
    """The upper Cholesky factor of the inverse [in, in] of the Hessian, damped as much as it needs to have one."""
    diagonal = h.diagonal()
    dead = diagonal <= 0
    mean = float(diagonal.mean())
    added = torch.where(dead, mean or 1.0, 0.0)
    while damping <= 1.0:
        damped = h + torch.diag(added + damping * (mean or 1.0))
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not int(failed):
            upper: torch.Tensor
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not int(failed) and bool(upper.isfinite().all()):
                return upper
        damping *= 10
    # Rows that depend on each other beyond all damping: each column alone, which rounds to nearest.
    return torch.diag_embed(torch.rsqrt(diagonal + mean + 1e-30))
