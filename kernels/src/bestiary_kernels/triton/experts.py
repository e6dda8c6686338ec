# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Feed-forward experts, each for the rows that the router sent to it, in one launch for each projection."""

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.gated import (
    gelu_tanh_and_mul,
    gelu_tanh_and_mul_reference,
    silu_and_mul,
    silu_and_mul_reference,
)
from bestiary_kernels.triton.launch import OPTIONS, power_of_two, tiles
from bestiary_kernels.triton.product import product_tile
from bestiary_kernels.triton.weight import Weight

Activation = Literal["silu", "gelu_tanh"]


def experts_reference(
    x: torch.Tensor, offsets: torch.Tensor, gate: Weight, up: Weight, down: Weight, act: Activation = "silu"
) -> torch.Tensor:
    both = {"silu": silu_and_mul_reference, "gelu_tanh": gelu_tanh_and_mul_reference}[act]
    middle = both(grouped_linear_reference(x, offsets, gate), grouped_linear_reference(x, offsets, up))
    return grouped_linear_reference(middle, offsets, down)


def experts(
    x: torch.Tensor, offsets: torch.Tensor, gate: Weight, up: Weight, down: Weight, act: Activation = "silu"
) -> torch.Tensor:
    """down(act(gate(x)) * up(x)) of each row's expert: x [R, D] -> [R, D].

    The rows are sorted by expert, and expert e has those from offsets[e] to offsets[e + 1]; offsets [E + 1] of whole
    numbers.  gate and up are stacks [E, I, D], down [E, D, I].
    """
    both = {"silu": silu_and_mul, "gelu_tanh": gelu_tanh_and_mul}[act]
    return grouped_linear(both(grouped_linear(x, offsets, gate), grouped_linear(x, offsets, up)), offsets, down)


def grouped_linear_reference(x: torch.Tensor, offsets: torch.Tensor, weight: Weight) -> torch.Tensor:
    numbers, bounds = weight.dequantize(), offsets.tolist()
    made = [
        torch.nn.functional.linear(x[first:end].float(), one)
        for one, first, end in zip(numbers, bounds[:-1], bounds[1:], strict=True)
    ]
    return torch.cat(made).to(x.dtype)


def grouped_linear(x: torch.Tensor, offsets: torch.Tensor, weight: Weight) -> torch.Tensor:
    """Rows x [R, K], sorted by expert, each times its expert's weight of [E, N, K] transposed: [R, N].

    offsets [E + 1] are the first rows of the experts and R.  They stay on the device: nothing waits for the router.
    Sums are float32, and a weight is rounded to the type of x.  Raises ValueError for shapes that disagree.
    """
    rows, columns = x.shape
    if len(weight.shape) != 3 or weight.shape[2] != columns or offsets.shape != (weight.shape[0] + 1,):
        raise ValueError(f"x {list(x.shape)} or offsets {list(offsets.shape)} do not fit {list(weight.shape)}.")
    count, outputs, _ = weight.shape
    y = x.new_empty((rows, outputs))
    if not rows:
        return y
    # As high as the experts' rows are many if they are spread evenly: the rest of a tile is work for nothing.
    height = min(max(power_of_two(tiles(rows, count)), 16), 64)
    # Each expert may have one tile that is not full.
    programs = min(tiles(rows, height) + count - 1, rows)
    grouped_rows[(programs, tiles(outputs, 64))](
        x.contiguous(),
        *weight.pointers(),
        *weight.strides(),
        offsets,
        y,
        outputs,
        E=count,
        GROUP=weight.group,
        COLUMNS=columns,
        DECODE=weight.kind.decode,
        BE=power_of_two(count),
        BM=height,
        BN=64,
        SPAN=weight.kind.span,
        num_warps=8 if weight.kind.span > 128 else 4,
        num_stages=2,
        **OPTIONS,
    )
    return y


@triton.jit
def grouped_rows(
    x,
    codes,
    scales,
    addends,
    codes_stride,
    scales_stride,
    addends_stride,
    offsets,
    y,
    outputs,
    E: tl.constexpr,
    GROUP: tl.constexpr,
    COLUMNS: tl.constexpr,
    DECODE: tl.constexpr,
    BE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SPAN: tl.constexpr,
):
    """x [R, COLUMNS] times weight [E, outputs, COLUMNS] transposed: y [R, outputs].

    A program has a tile of BM rows of one expert and BN outputs.  Which expert that is it reads out of the offsets: the
    tiles of all experts are numbered in order.
    """
    number = tl.program_id(0)
    expert = tl.arange(0, BE)
    first = tl.load(offsets + expert, mask=expert < E, other=0).to(tl.int32)
    end = tl.load(offsets + expert + 1, mask=expert < E, other=0).to(tl.int32)
    through = tl.cumsum((end - first + BM - 1) // BM, 0)  # tiles up to and with each expert
    mine = tl.sum((through <= number).to(tl.int32), 0)
    if mine < E:
        earlier = tl.max(tl.where(through <= number, through, 0), 0)
        begin = tl.load(offsets + mine).to(tl.int32) + (number - earlier) * BM
        row = begin + tl.arange(0, BM)
        real = row < tl.load(offsets + mine + 1).to(tl.int32)
        row = row.to(tl.int64)
        output = (tl.program_id(1) * BN + tl.arange(0, BN)).to(tl.int64)
        inside = output < outputs
        which = mine.to(tl.int64)
        total = product_tile(
            x,
            row,
            real,
            codes + which * codes_stride,
            scales + which * scales_stride,
            addends + which * addends_stride,
            output,
            inside,
            GROUP,
            COLUMNS,
            DECODE,
            BM,
            BN,
            SPAN,
        )
        at = row[:, None] * outputs + output[None, :]
        tl.store(y + at, total.to(y.dtype.element_ty), mask=real[:, None] & inside[None, :])
