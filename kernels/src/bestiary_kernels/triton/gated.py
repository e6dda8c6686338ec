# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""The middle of a gated feed-forward block: act(gate) * up (Shazeer 2020, GLU variants)."""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.functions import sigmoid
from bestiary_kernels.triton.launch import OPTIONS, tiles

_BLOCK = 1024


def silu_and_mul_reference(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return (torch.nn.functional.silu(gate.float()).to(gate.dtype) * up).to(gate.dtype)


def silu_and_mul(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, both [..., D], rounded before the product too; they may be the halves of one tensor."""
    return _gated(gate, up, silu=True)


def gelu_tanh_and_mul_reference(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return (torch.nn.functional.gelu(gate.float(), approximate="tanh").to(gate.dtype) * up).to(gate.dtype)


def gelu_tanh_and_mul(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """gelu(gate) * up, both [..., D], rounded before the product too, with the gelu that has a tanh (`gelu_new`)."""
    return _gated(gate, up, silu=False)


def _gated(gate: torch.Tensor, up: torch.Tensor, silu: bool) -> torch.Tensor:
    if gate.shape != up.shape:
        raise ValueError(f"gate {list(gate.shape)} and up {list(up.shape)} are of different shapes.")
    y = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    if not y.numel():
        return y
    left, right = _rows(gate), _rows(up)
    rows, width = left.shape
    gated[(rows, tiles(width, _BLOCK))](
        left, right, y, left.stride(0), right.stride(0), width, SILU=silu, BLOCK=_BLOCK, num_warps=4, **OPTIONS
    )
    return y


def _rows(x: torch.Tensor) -> torch.Tensor:
    """[rows, D] whose rows are contiguous: half of a tensor stays where it is."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


@triton.jit
def gated(gate, up, y, gate_stride, up_stride, width, SILU: tl.constexpr, BLOCK: tl.constexpr):
    """A program has BLOCK columns of one row; strides are those of rows, and y [rows, width] is contiguous."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    held = column < width
    left = tl.load(gate + row * gate_stride + column, mask=held, other=0).to(tl.float32)
    right = tl.load(up + row * up_stride + column, mask=held, other=0).to(tl.float32)
    if SILU:
        active = left * sigmoid(left)
    else:
        # (1 + tanh(u)) / 2 is sigmoid(2 u); u = sqrt(2 / pi) (x + 0.044715 x^3)
        active = left * sigmoid(1.5957691216057308 * left * (1.0 + 0.044715 * left * left))
    active = active.to(gate.dtype.element_ty).to(tl.float32)  # as torch, which has the activation as a tensor
    tl.store(y + row * width + column, (active * right).to(y.dtype.element_ty), mask=held)
