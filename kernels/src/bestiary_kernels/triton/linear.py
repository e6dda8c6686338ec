# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Linear layers whose weights stay in the bytes of their file: a matrix-vector and a matrix-matrix product."""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.launch import OPTIONS, power_of_two, tiles
from bestiary_kernels.triton.product import product_tile
from bestiary_kernels.triton.weight import Weight

FEW = 8
"""Rows of x up to which a weight is read for one product of vectors after another: below a tile of `tl.dot`, 16."""
_SPAN = 256
"""Columns that a product of vectors decodes at a time: the longest blocks of any format."""
_PROGRAMS = 512
"""A product of vectors is split over its columns until there are about so many programs, some for each processor."""


def linear_reference(x: torch.Tensor, weight: Weight) -> torch.Tensor:
    """x [..., K] times a weight [N, K] transposed: [..., N] in the type of x."""
    return torch.nn.functional.linear(x.float(), weight.dequantize()).to(x.dtype)


def linear(x: torch.Tensor, weight: Weight) -> torch.Tensor:
    """x [..., K] times a weight [N, K] transposed: [..., N] in the type of x, of sums in float32.

    Up to FEW rows of x are multiplied in float32.  More go through tensor cores, for which the weight is rounded to the
    type of x.  Raises ValueError for shapes that disagree.
    """
    count, columns = _shape(x, weight)
    flat = x.reshape(-1, columns).contiguous()
    if not len(flat):
        return x.new_empty((*x.shape[:-1], count))
    y = _few(flat, weight) if len(flat) <= FEW else _many(flat, weight)
    return y.view(*x.shape[:-1], count)


def _shape(x: torch.Tensor, weight: Weight) -> tuple[int, int]:
    if len(weight.shape) != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x {list(x.shape)} does not fit a weight {list(weight.shape)}.")
    return weight.shape[0], weight.shape[1]


def _few(x: torch.Tensor, weight: Weight) -> torch.Tensor:
    (rows, columns), count = x.shape, weight.shape[0]
    outputs = 16 if rows == 1 else 8 if rows <= 4 else 4  # so that a thread holds 32 to 64 sums
    programs = tiles(count, outputs)
    # Of at least four spans each, so that a part has something to do.
    parts = max(1, min(_PROGRAMS // programs, tiles(columns, 4 * _SPAN)))
    part = tiles(tiles(columns, parts), _SPAN) * _SPAN
    parts = tiles(columns, part)
    y = x.new_empty((parts, rows, count), dtype=x.dtype if parts == 1 else torch.float32)
    few_rows[(programs, parts)](
        x,
        *weight.pointers(),
        y,
        count,
        GROUP=weight.group,
        COLUMNS=columns,
        PART=part,
        DECODE=weight.kind.decode,
        ROWS=rows,
        BN=outputs,
        SPAN=_SPAN,
        num_warps=4,
        **OPTIONS,
    )
    return y[0] if parts == 1 else y.sum(0).to(x.dtype)


@triton.jit
def few_rows(
    x,
    codes,
    scales,
    addends,
    y,
    count,
    GROUP: tl.constexpr,
    COLUMNS: tl.constexpr,
    PART: tl.constexpr,
    DECODE: tl.constexpr,
    ROWS: tl.constexpr,
    BN: tl.constexpr,
    SPAN: tl.constexpr,
):
    """x [ROWS, COLUMNS] times weight [count, COLUMNS] transposed, of PART columns: y [parts, ROWS, count].

    A program has BN outputs and one part of the columns.  For each row of x it has a tile [BN, SPAN] of sums, laid out
    as the decoder leaves the weight: products are summed where they are made, and brought together at the end.
    """
    output = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = output < count
    sums = ()
    for _ in tl.static_range(ROWS):
        sums += (tl.zeros((BN, SPAN), tl.float32),)  # type: ignore[assignment]
    for step in range(0, PART, SPAN):
        first = tl.program_id(1) * PART + step
        column = first + tl.arange(0, SPAN)
        right = DECODE(codes, scales, addends, output.to(tl.int64), inside, first, GROUP, COLUMNS, SPAN)
        longer = ()
        for row in tl.static_range(ROWS):
            left = tl.load(x + row * COLUMNS + column, mask=column < COLUMNS, other=0).to(tl.float32)
            longer += (sums[row] + left[None, :] * right,)  # type: ignore[assignment]
        sums = longer
    for row in tl.static_range(ROWS):
        total = tl.sum(sums[row], 1)
        tl.store(y + (tl.program_id(1) * ROWS + row) * count + output, total.to(y.dtype.element_ty), mask=inside)


def _many(x: torch.Tensor, weight: Weight) -> torch.Tensor:
    (rows, columns), count = x.shape, weight.shape[0]
    y = x.new_empty((rows, count))
    height = min(max(power_of_two(rows), 16), 64)
    many_rows[(tiles(rows, height), tiles(count, 64))](
        x,
        *weight.pointers(),
        y,
        rows,
        count,
        GROUP=weight.group,
        COLUMNS=columns,
        DECODE=weight.kind.decode,
        BM=height,
        BN=64,
        SPAN=weight.kind.span,
        num_warps=8 if weight.kind.span > 128 else 4,
        num_stages=2,
        **OPTIONS,
    )
    return y


@triton.jit
def many_rows(
    x,
    codes,
    scales,
    addends,
    y,
    rows,
    count,
    GROUP: tl.constexpr,
    COLUMNS: tl.constexpr,
    DECODE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SPAN: tl.constexpr,
):
    """x [rows, COLUMNS] times weight [count, COLUMNS] transposed: y [rows, count].

    A program has a tile of BM rows and BN outputs.  Programs of the same outputs follow each other, so that the bytes
    of the weight are still in the cache for the next tile of rows.
    """
    row = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    output = (tl.program_id(1) * BN + tl.arange(0, BN)).to(tl.int64)
    real, inside = row < rows, output < count
    total = product_tile(x, row, real, codes, scales, addends, output, inside, GROUP, COLUMNS, DECODE, BM, BN, SPAN)
    tl.store(y + row[:, None] * count + output[None, :], total.to(y.dtype.element_ty), real[:, None] & inside[None, :])
