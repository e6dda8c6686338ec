"""Products with packed weights are those of the numbers that the bytes stand for, taken in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="the kernels for GPUs need triton, an optional extra")

from bestiary_kernels.triton.formats.table import FORMATS
from bestiary_kernels.triton.linear import FEW, linear, linear_reference

ERRORS = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Of a product as a whole.  Triton's interpreter cuts float32 off to bfloat16, where a GPU rounds it."""


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs).norm() / theirs.norm())


# A product of vectors and one of matrices, and others that are thorough.
CASES: list[Any] = [(1, torch.float32), (20, torch.bfloat16)]
CASES += [
    pytest.param(rows, dtype, marks=pytest.mark.thorough)
    for rows, dtype in [*((rows, torch.float32) for rows in (3, FEW, FEW + 1, 40)), (2, torch.bfloat16)]
]


@pytest.mark.parametrize(("rows", "dtype"), CASES)
@pytest.mark.parametrize("name", FORMATS)
def test_product(name: str, rows: int, dtype: torch.dtype, large: bool, device: str, make_weight: Any) -> None:
    outputs, columns = (4096, 4096) if large else (41, 512)
    held = make_weight(name, (outputs,), columns, dtype)
    x = torch.randn(rows, columns, device=device).to(dtype)
    y = linear(x, held)
    assert y.dtype == dtype and y.shape == (rows, outputs)
    assert error(y, x.double() @ held.dequantize().double().T) < ERRORS[dtype]


@pytest.mark.parametrize("rows", [1, 6, 20])
def test_float16(rows: int, device: str, make_weight: Any) -> None:
    held = make_weight("Q4_0", (33,), 384)
    x = torch.randn(rows, 384, device=device).half()
    assert error(linear(x, held), x.double() @ held.dequantize().double().T) < ERRORS[torch.float16]


@pytest.mark.parametrize("name", ["Q8_0", "Q4_K", "int4"])
def test_columns_are_split(name: str, device: str, make_weight: Any) -> None:
    # 17 outputs are two programs: each has a part of the columns, and the last part is short.
    held = make_weight(name, (17,), 2304)
    x = torch.randn(2, 2304, device=device)
    assert error(linear(x, held), x.double() @ held.dequantize().double().T) < ERRORS[torch.float32]


def test_any_number_of_columns(device: str, make_weight: Any) -> None:
    for name in ("plain", "float8"):
        held = make_weight(name, (131,), 140)
        for rows in (1, 19):
            x = torch.randn(rows, 140, device=device)
            assert error(linear(x, held), x.double() @ held.dequantize().double().T) < ERRORS[torch.float32]


def test_leading_dimensions_and_views(device: str, make_weight: Any) -> None:
    held = make_weight("Q8_0", (24,), 64)
    x = torch.randn(2, 5, 128, device=device)[..., ::2]
    y = linear(x, held)
    assert y.shape == (2, 5, 24)
    torch.testing.assert_close(y, linear_reference(x, held), rtol=1e-5, atol=1e-4)
    assert linear(x[:0], held).shape == (0, 5, 24)


def test_misfits_are_refused(device: str, make_weight: Any) -> None:
    held = make_weight("Q8_0", (24,), 64)
    with pytest.raises(ValueError, match="does not fit"):
        linear(torch.randn(2, 32, device=device), held)
    with pytest.raises(ValueError, match="does not fit"):
        linear(torch.randn(2, 64, device=device), make_weight("Q8_0", (3, 24), 64))
