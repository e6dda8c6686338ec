"""Experts in one launch give what each of them gives for its rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="the kernels for GPUs need triton, an optional extra")

from bestiary_kernels.triton.experts import experts, experts_reference, grouped_linear
from bestiary_kernels.triton.formats.table import FORMATS

ERRORS = {torch.float32: 1e-6, torch.bfloat16: 3e-2}
"""Of the result as a whole.  Triton's interpreter cuts float32 off to bfloat16, where a GPU rounds it."""
COUNTS = ([5, 0, 21, 1, 0], [0, 0, 0, 40, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 90])
"""Rows of each expert: some have none, some have several tiles of them."""


def offsets(counts: list[int], device: str) -> torch.Tensor:
    return F.pad(torch.tensor(counts), (1, 0)).cumsum(0).to(device)


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs).norm() / theirs.norm())


def expected(x: torch.Tensor, counts: list[int], numbers: torch.Tensor) -> torch.Tensor:
    return torch.cat([part @ one.T for part, one in zip(x.split(counts), numbers, strict=True)])


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format(name: str, dtype: torch.dtype, large: bool, device: str, make_weight: Any) -> None:
    outputs, columns, times = (1536, 2048, 40) if large else (70, 512, 1)
    counts = [times * count for count in COUNTS[0]]
    stack = make_weight(name, (5, outputs), columns, dtype)
    x = torch.randn(sum(counts), columns, device=device).to(dtype)
    y = grouped_linear(x, offsets(counts, device), stack)
    assert error(y, expected(x.double(), counts, stack.dequantize().double())) < ERRORS[dtype]


@pytest.mark.parametrize("counts", COUNTS)
def test_every_spread(counts: list[int], device: str, make_weight: Any) -> None:
    stack = make_weight("plain", (5, 24), 40)
    x = torch.randn(sum(counts), 40, device=device)
    y = grouped_linear(x, offsets(counts, device), stack)
    assert error(y, expected(x.double(), counts, stack.dequantize().double())) < ERRORS[torch.float32]


@pytest.mark.parametrize("act", ["silu", "gelu_tanh"])
def test_gated_experts(act: Any, device: str, make_weight: Any) -> None:
    counts = COUNTS[0]
    gate, up, down = (make_weight("Q8_0", (5, rows), columns) for rows, columns in ((96, 64), (96, 64), (64, 96)))
    x = torch.randn(sum(counts), 64, device=device)
    function = {"silu": F.silu, "gelu_tanh": lambda z: F.gelu(z, approximate="tanh")}[act]
    wide = [stack.dequantize().double() for stack in (gate, up, down)]
    middle = function(expected(x.double(), counts, wide[0])) * expected(x.double(), counts, wide[1])
    due = expected(middle, counts, wide[2])
    told = x, offsets(counts, device), gate, up, down, act
    assert error(experts(*told), due) < 2e-6
    assert error(experts_reference(*told), due) < 2e-6


def test_misfits_are_refused(device: str, make_weight: Any) -> None:
    stack, x = make_weight("Q8_0", (5, 24), 64), torch.randn(3, 64, device=device)
    with pytest.raises(ValueError, match="do not fit"):
        grouped_linear(x, torch.zeros(5, dtype=torch.int64, device=device), stack)
    with pytest.raises(ValueError, match="do not fit"):
        grouped_linear(x[:, :32], torch.zeros(6, dtype=torch.int64, device=device), stack)
    assert grouped_linear(x[:0], torch.zeros(6, dtype=torch.int64, device=device), stack).shape == (0, 24)
