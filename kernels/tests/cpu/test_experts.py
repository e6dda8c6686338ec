"""Layers of experts against plain torch, of which each expert has few or many rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from packed_weights import blocks

from bestiary.nn.operations import plain
from bestiary_kernels.cpu.library import library
from bestiary_kernels.cpu.operations import experts
from bestiary_kernels.cpu.panels import pack_blocks
from bestiary_kernels.cpu.types import BLOCKS
from bestiary_kernels.cpu.weights import PanelStack

COUNT, WIDTH, HIDDEN = 5, 96, 80
DTYPES = pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=str)
TOKENS = pytest.mark.parametrize("tokens", (1, 4, 17, 70))
"""With two experts each: one row of an expert to about forty."""


def chosen(tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(tokens, WIDTH).to(dtype)
    indices = torch.stack([torch.randperm(COUNT)[:2] for _ in range(tokens)])
    return x, torch.rand(tokens, 2).to(dtype), indices


def stack(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    return (torch.randn(COUNT, rows, columns) / columns**0.5).to(dtype)


def packed(rows: int, columns: int) -> PanelStack:
    made = blocks("Q8_0", COUNT * rows, columns, np.random.default_rng(rows))
    return PanelStack(pack_blocks(library(), torch.from_numpy(made), BLOCKS["Q8_0"], 2), COUNT)


@DTYPES
@TOKENS
def test_plain_experts_equal_float64(dtype: torch.dtype, tokens: int) -> None:
    torch.manual_seed(tokens)
    x, weights, indices = chosen(tokens, dtype)
    stacks = [stack(HIDDEN, WIDTH, dtype), stack(HIDDEN, WIDTH, dtype), stack(WIDTH, HIDDEN, dtype)]
    y = experts(x, weights, indices, stacks, "silu")
    reference = plain("experts")
    assert reference is not None
    exact = reference(x.double(), weights.double(), indices, [each.double() for each in stacks], "silu")
    step = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    assert y.dtype == dtype and (y.double() - exact).abs().max() <= 4 * step * exact.abs().max()


@TOKENS
@pytest.mark.parametrize("kinds", ("packed plain", "plain packed", "packed packed"))
def test_gate_and_up_may_be_held_in_two_ways(kinds: str, tokens: int) -> None:
    torch.manual_seed(tokens)
    x, weights, indices = chosen(tokens, torch.float32)
    both = [
        packed(HIDDEN, WIDTH) if kind == "packed" else stack(HIDDEN, WIDTH, torch.float32) for kind in kinds.split()
    ]
    stacks = [*both, stack(WIDTH, HIDDEN, torch.float32)]
    reference = plain("experts")
    assert reference is not None
    wanted = reference(x, weights, indices, stacks, "silu")
    assert (experts(x, weights, indices, stacks, "silu") - wanted).abs().max() <= 0.03 * wanted.abs().max()
