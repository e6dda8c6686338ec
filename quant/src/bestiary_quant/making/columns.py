"""Groups of numbers as columns, so that arithmetic on all groups runs along memory.

Sums and maxima here take the same steps for every column, wherever it lies among others: so the bytes of a row do not
depend on the rows beside it, as they would with `Tensor.sum`, whose order changes at the edges of vectors and threads.
"""

from __future__ import annotations

import torch


def columns(x: torch.Tensor, group: int, block: int) -> torch.Tensor:
    """Rows [R, C] -> [group, block / group, R * C / block]: numbers of a group, groups of a block, blocks in order."""
    return x.reshape(-1, block // group, group).permute(2, 1, 0).contiguous()


def rows(codes: torch.Tensor, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """Whole numbers as `columns` has them [group, G, N] -> bytes [N, G * group], in order; int8 for signed ones."""
    return codes.to(dtype).permute(2, 1, 0).flatten(1).contiguous().view(torch.uint8)


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum of each column of [L, ...]; `values` is overwritten."""
    count = len(values)
    while count > 1:
        half = (count + 1) // 2
        values[: count - half].add_(values[half:count])
        count = half
    return values[0].clone()


def peak(x: torch.Tensor) -> torch.Tensor:
    """Of each column of [2^n, ...] the number farthest from zero, with its sign; of equally far ones the first."""
    while len(x) > 1:
        left, right = x[0::2], x[1::2]
        x = torch.where(right.abs() > left.abs(), right, left)
    return x[0]


def divided(numerator: torch.Tensor | float, denominator: torch.Tensor) -> torch.Tensor:
    """The quotient, and zero where it is not finite: of a block of zeros, or of numbers too small to have one."""
    # A Python number divided by a tensor is rounded twice: as its product with the reciprocal.
    quotient = torch.div(torch.as_tensor(numerator, dtype=denominator.dtype), denominator)
    return torch.where(quotient.isfinite(), quotient, 0.0)


def codes(x: torch.Tensor, step: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """The whole numbers in [low, high] whose products with `step` are nearest to x; zero where the step is zero."""
    return divided(x, step).round_().clamp_(low, high)
