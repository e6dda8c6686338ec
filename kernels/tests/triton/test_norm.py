"""The fused norm is the sum, and then the core's norm, to the bit where that rounds at the same places."""

from __future__ import annotations

import pytest
import torch

from bestiary.nn.norm import RMSNorm

pytest.importorskip("triton", reason="the kernels for GPUs need triton, an optional extra")

from bestiary_kernels.triton.norm import add_rms_norm, add_rms_norm_reference

TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""A few of the last bits of a number.  Triton's interpreter cuts float32 off to bfloat16, where a GPU rounds it."""


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_norm(dtype: torch.dtype, offset: float, added: bool, large: bool, device: str) -> None:
    rows, width = (4096, 5120) if large else (5, 96)
    x, residual = torch.randn(2, rows, width, device=device).to(dtype)
    norm = RMSNorm(width, eps=1e-5, offset=offset).to(device, dtype)
    torch.nn.init.normal_(norm.weight)
    due = x + residual if added else x
    told = x, residual if added else None, norm.weight.detach(), 1e-5, offset
    close = {"rtol": TOLERANCES[dtype], "atol": TOLERANCES[dtype]}
    for y, total in (add_rms_norm(*told), add_rms_norm_reference(*told)):
        torch.testing.assert_close(total, due, **close)
        torch.testing.assert_close(y, norm(total).detach(), **close)


def test_sum_is_rounded_before_it_is_normed(device: str) -> None:
    # In float16 the sum is 2048 or 2050 where x and residual are 2048 and 1 or less: what is normed is what is kept.
    x, residual = torch.full((1, 4), 2048.0, device=device).half(), torch.ones(1, 4, device=device).half()
    residual[0, 0] = 1.5
    y, total = add_rms_norm(x, residual, torch.ones(4, device=device).half(), 0.0)
    assert total.tolist() == [[2050.0, 2048.0, 2048.0, 2048.0]]
    assert torch.equal(y, torch.nn.functional.rms_norm(total.float(), (4,), eps=0.0).half())


def test_leading_dimensions_and_none(device: str) -> None:
    x, weight = torch.randn(2, 3, 8, device=device), torch.ones(8, device=device)
    y, total = add_rms_norm(x, None, weight, 1e-6)
    assert total is x and y.shape == x.shape
    assert add_rms_norm(x[:0], None, weight, 1e-6)[0].shape == (0, 3, 8)
    with pytest.raises(ValueError, match="does not fit"):
        add_rms_norm(x, x[:1], weight, 1e-6)
