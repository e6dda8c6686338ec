# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Root-mean-square norm (Zhang and Sennrich 2019) together with the sum before it."""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.launch import OPTIONS, power_of_two


def add_rms_norm_reference(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float, offset: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """x and residual [..., D] and a weight [D] -> the norm of their sum, and the sum."""
    total = x if residual is None else x + residual
    wide = total.float()
    y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    if offset:
        return (y * (weight.float() + offset)).to(x.dtype), total
    return (y.to(x.dtype).float() * weight.float()).to(x.dtype), total


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float, offset: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """x and residual [..., D] and a weight [D] -> the norm of their sum, and the sum, which is x without a residual.

    The sum is rounded to the type of x, and what is rounded is normed, in float32.  The norm is rounded before the
    weight multiplies it, as in Llama, unless an offset is added to the weight: Gemma stores it less one, and multiplies
    first.  Raises ValueError for shapes that disagree.
    """
    width = x.shape[-1]
    if weight.shape != (width,) or (residual is not None and residual.shape != x.shape):
        raise ValueError(f"x {list(x.shape)} does not fit its residual or the weight {list(weight.shape)}.")
    x = x.contiguous()
    y = torch.empty_like(x)
    total = x if residual is None else torch.empty_like(x)
    block = power_of_two(width)
    if x.numel():
        one_row[(x.numel() // width,)](
            x,
            x if residual is None else residual.contiguous(),
            weight,
            y,
            total,
            eps,
            offset,
            D=width,
            ADD=residual is not None,
            ROUND=not offset,
            BLOCK=block,
            num_warps=min(max(block // 512, 1), 16),
            **OPTIONS,
        )
    return y, total


@triton.jit
def one_row(
    x,
    residual,
    weight,
    y,
    total,
    eps,
    offset,
    D: tl.constexpr,
    ADD: tl.constexpr,
    ROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program has one row of x, residual, y and total [rows, D]; weight [D]."""
    column = tl.arange(0, BLOCK)
    held = column < D
    at = tl.program_id(0).to(tl.int64) * D + column
    row = tl.load(x + at, mask=held, other=0)
    if ADD:
        added = row.to(tl.float32) + tl.load(residual + at, mask=held, other=0).to(tl.float32)
        row = added.to(x.dtype.element_ty)
        tl.store(total + at, row, mask=held)
    wide = row.to(tl.float32)
    normed = wide * tl.rsqrt(tl.sum(wide * wide, 0) / D + eps)
    if ROUND:
        normed = normed.to(x.dtype.element_ty).to(tl.float32)
    factor = tl.load(weight + column, mask=held, other=0).to(tl.float32) + offset
    tl.store(y + at, (normed * factor).to(y.dtype.element_ty), mask=held)
