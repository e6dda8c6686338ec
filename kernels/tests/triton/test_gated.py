"""Gated activations are torch's, and so is where they are rounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="the kernels for GPUs need triton, an optional extra")

from bestiary_kernels.triton.gated import (
    gelu_tanh_and_mul,
    gelu_tanh_and_mul_reference,
    silu_and_mul,
    silu_and_mul_reference,
)

Gated = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 2e-2}
"""The last bit of a number, or two.  Triton's interpreter cuts float32 off to bfloat16, twice; a GPU rounds it."""
FUNCTIONS = [
    (silu_and_mul, lambda x: F.silu(x)),
    (silu_and_mul_reference, lambda x: F.silu(x)),
    (gelu_tanh_and_mul, lambda x: F.gelu(x, approximate="tanh")),
    (gelu_tanh_and_mul_reference, lambda x: F.gelu(x, approximate="tanh")),
]


@pytest.mark.parametrize(("function", "activation"), FUNCTIONS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_halves_of_one_tensor(
    dtype: torch.dtype, function: Gated, activation: Callable[[torch.Tensor], torch.Tensor], large: bool, device: str
) -> None:
    rows, width = (512, 14336) if large else (3, 1100)
    gate, up = torch.randn(rows, 2 * width, device=device).to(dtype).chunk(2, -1)
    due = activation(gate.double()) * up.double()
    y = function(gate, up)
    assert y.dtype == dtype and y.is_contiguous()
    torch.testing.assert_close(y.double(), due, rtol=TOLERANCES[dtype], atol=1e-6)


@pytest.mark.parametrize(("function", "activation"), FUNCTIONS)
def test_the_activation_is_rounded_before_the_product(
    function: Gated, activation: Callable[[torch.Tensor], torch.Tensor], device: str
) -> None:
    gate, up = torch.randn(2, 4, 512, device=device).half()
    twice, once = activation(gate.float()).half() * up, (activation(gate.float()) * up.float()).half()
    y = function(gate, up)
    assert (y != once).sum() > 100
    assert (y != twice).sum() < 20  # where exp itself is another in its last bit


@pytest.mark.parametrize(("function", "activation"), FUNCTIONS)
def test_far_numbers(function: Gated, activation: Callable[[torch.Tensor], torch.Tensor], device: str) -> None:
    gate = torch.tensor([[-300.0, -100.0, -20.0, 0.0, 20.0, 100.0, 300.0]], device=device)
    y = function(gate, torch.ones_like(gate))
    torch.testing.assert_close(y.double(), activation(gate.double()), rtol=1e-6, atol=1e-6)


def test_shapes(device: str) -> None:
    gate = torch.randn(2, 3, 8, device=device)
    assert silu_and_mul(gate, gate).shape == (2, 3, 8)
    assert silu_and_mul(gate[:0], gate[:0]).shape == (0, 3, 8)
    torch.testing.assert_close(silu_and_mul(gate.mT, gate.mT), F.silu(gate.mT) * gate.mT)
    with pytest.raises(ValueError, match="different shapes"):
        silu_and_mul(gate, gate[:1])
