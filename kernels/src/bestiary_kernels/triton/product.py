# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""A tile of a matrix product with weights that are decoded on the way: what linear layers and experts share."""

import triton
import triton.language as tl

from bestiary_kernels.triton.dot import dot


@triton.jit
def product_tile(
    x,
    rows,
    real,
    codes,
    scales,
    addends,
    outputs,
    inside,
    GROUP: tl.constexpr,
    COLUMNS: tl.constexpr,
    DECODE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SPAN: tl.constexpr,
):
    """x[rows] times weight[outputs] transposed: [BM, BN] in float32.

    x [M, COLUMNS] contiguous; rows [BM] int64, those which are not `real` are zeros; outputs [BN] int64, those which
    are not `inside` are zeros.  The weight is rounded to the type of x before it multiplies.
    """
    sums = tl.zeros((BM, BN), tl.float32)
    for first in range(0, COLUMNS, SPAN):
        column = first + tl.arange(0, SPAN)
        held = real[:, None] & (column < COLUMNS)[None, :]
        left = tl.load(x + rows[:, None] * COLUMNS + column[None, :], mask=held, other=0)
        right = DECODE(codes, scales, addends, outputs, inside, first, GROUP, COLUMNS, SPAN)
        sums = dot(left, tl.trans(right.to(left.dtype)), sums)
    return sums
