"""Numbers and shapes at the edges: nothing is lost, nothing becomes NaN, and rows do not depend on each other."""

from typing import Any

import pytest
import torch

from bestiary.errors import CheckpointError, OptionError
from bestiary_quant.making import pack as packing
from bestiary_quant.making import panels
from bestiary_quant.making.pack import Substitution, pack
from bestiary_quant.making.schemes import SCHEMES
from bestiary_quant.packed import PackedMatrix, PackedStack

ALL = pytest.mark.parametrize("name", SCHEMES)
ACROSS_ROWS = ("hqq4", "hqq8", "fp8", "fp8_blocks")
COARSE = {"tq1_0": 2.0, "tq2_0": 2.0, "q2k": 0.6, "afq2": 0.6, "q3k": 0.3, "afq3": 0.3}
"""The largest relative error of a row of Gaussian numbers; 0.2 for the others."""


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def values(x: torch.Tensor, name: str, importance: torch.Tensor | None = None) -> torch.Tensor:
    made = pack(x, name, importance)
    assert made is not None and made.shape == tuple(x.shape)
    return made.dequantize()


@ALL
def test_zeros_stay_zeros(name: str) -> None:
    assert not values(torch.zeros(64, 512), name).any()
    x = gaussian(64, 512)
    x[:, 256:] = 0
    if name not in ACROSS_ROWS:
        assert not values(x, name)[:, 256:].any()


@ALL
@pytest.mark.parametrize("constant", [-0.3, 0.3, 1e-3, 1.0])
def test_constant_rows(name: str, constant: float) -> None:
    """Near, as far as scales go: 16-bit floats, which are coarse for small numbers, and powers of two in MXFP4."""
    error = (values(torch.full((64, 512), constant), name) - constant).abs().max() / abs(constant)
    assert error <= (0.2 if name == "mxfp4" else 5e-3 if abs(constant) >= 0.01 else 0.1)


@ALL
@pytest.mark.parametrize("importance", [None, "zero", "one column", "wild"])
@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e-8, 1e-3, 1e4, 3e37])
def test_any_magnitude(name: str, size: float, importance: str | None) -> None:
    """The numbers come out finite, and no larger than they were; too large ones are not packed, and this is told."""
    x = gaussian(64, 256) * 50 * size
    assert x.isfinite().all()
    weights = {
        None: None,
        "zero": torch.zeros(256),
        "one column": torch.nn.functional.one_hot(torch.tensor(7), 256).float() * 1e30,
        "wild": torch.logspace(-30, 30, 256, dtype=torch.float64),
    }[importance]
    told: list[Substitution] = []
    made = pack(x, name, weights, name="a.weight", report=told.append)
    largest = SCHEMES[name].largest
    if largest is not None and float(x.abs().max()) > largest:
        assert made is None and told[0].got is None and "reach" in told[0].why
        return
    assert made is not None and not told
    found = made.dequantize()
    assert found.isfinite().all()
    assert found.abs().max() <= 2 * x.abs().max() + 1e-6
    if size >= 1e-3 and importance is None:
        assert (found - x).norm() <= COARSE.get(name, 0.2) * x.norm()


@pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if scheme.kind is not None])
def test_each_expert_of_a_stack_has_its_importance(name: str) -> None:
    experts = torch.stack([gaussian(3, 256, seed) for seed in range(3)])
    importance = torch.rand(3, 256, generator=torch.Generator().manual_seed(7))
    importance[1] = 0
    importance[2] *= 1e20
    stack = pack(experts, name, importance)
    assert isinstance(stack, PackedStack) and stack.shape == (3, 3, 256)
    for number, expert in enumerate(experts):
        assert torch.equal(stack[number].dequantize(), values(expert, name, importance[number]))
    shared = pack(experts, name, importance[0])
    assert isinstance(shared, PackedStack)
    assert torch.equal(shared[2].dequantize(), values(experts[2], name, importance[0]))


@ALL
def test_importance_of_zeros_is_no_importance_at_all(name: str) -> None:
    x, ones = gaussian(64, 512), torch.ones(512)
    assert torch.equal(values(x, name, 0 * ones), values(x, name, ones))
    part = torch.cat((torch.zeros(256), torch.ones(256)))
    found = values(x, name, part)
    assert (found - x).norm(dim=1).max() <= COARSE.get(name, 0.2) * x.norm(dim=1).min() * 2


@pytest.mark.parametrize("name", [name for name in SCHEMES if name not in ACROSS_ROWS])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_row_does_not_depend_on_its_neighbours(name: str, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = gaussian(37, 768)
    importance = torch.rand(768, generator=torch.Generator().manual_seed(1)) if weighted else None
    whole = values(x, name, importance)
    for row in (0, 17, 36):
        assert torch.equal(values(x[row : row + 1], name, importance), whole[row : row + 1])
    monkeypatch.setattr(packing, "MAKING", 5 * 768)
    monkeypatch.setattr(panels, "MAKING", 5 * 768)
    assert torch.equal(values(x, name, importance), whole)


@pytest.mark.parametrize("name", ACROSS_ROWS)
def test_panels_do_not_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = gaussian(320, 192)
    whole = values(x, name)
    monkeypatch.setattr(panels, "MAKING", 64 * 192 * 2)
    torch.testing.assert_close(values(x, name), whole, rtol=0, atol=1e-6)


@ALL
@pytest.mark.parametrize("shape", [(1, 256), (64, 512), (2, 32)])
def test_the_weight_is_not_touched(name: str, shape: tuple[int, int]) -> None:
    x = gaussian(*shape)
    before = x.clone()
    pack(x, name, torch.ones(shape[1]))
    assert torch.equal(x, before)


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_and_strides(name: str, dtype: torch.dtype) -> None:
    x = gaussian(128, 512).to(dtype)
    expected = values(x.float(), name)
    assert torch.equal(values(x, name), expected)
    wide = torch.cat((x, x), 1)[:, :512]
    assert not wide.is_contiguous()
    assert torch.equal(values(wide, name), expected)
    assert torch.equal(values(x.T.contiguous().T, name), expected)
    assert torch.equal(values(torch.nn.Parameter(x), name), expected)


@ALL
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    x = gaussian(64, 512)
    x[63, 511] = bad
    with pytest.raises(CheckpointError, match="not finite") as caught:
        pack(x, name, name="model.layers.3.mlp.up_proj.weight")
    assert caught.value.where == "model.layers.3.mlp.up_proj.weight"


@pytest.mark.parametrize(
    "importance",
    [torch.ones(511), torch.ones(1, 512), torch.full((512,), -1.0), torch.full((512,), float("nan"))],
    ids=["short", "two dimensions", "negative", "nan"],
)
def test_importance_that_does_not_fit_is_refused(importance: torch.Tensor) -> None:
    with pytest.raises(OptionError, match="importance"):
        pack(gaussian(2, 512), "q4k", importance)


@pytest.mark.parametrize(("shape", "dtype"), [((4,), "float32"), ((1, 2, 3, 256), "float32"), ((2, 256), "int64")])
def test_what_is_no_weight_is_refused(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(OptionError, match="cannot be quantised"):
        pack(torch.zeros(shape, dtype=getattr(torch, dtype)), "q8_0")


@ALL
def test_nothing_is_left_unwritten(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory is full of ones here, so a byte that is not written would show."""
    x = gaussian(130, 512)
    first = pack(x, name)
    empty = torch.empty

    def poisoned(*shape: Any, **kind: Any) -> torch.Tensor:
        made = empty(*shape, **kind)
        made.view(torch.uint8).fill_(255)
        return made

    monkeypatch.setattr(torch, "empty", poisoned)
    second = pack(x, name)
    assert first is not None and second is not None
    assert torch.equal(first.dequantize(), second.dequantize())
    if isinstance(first, PackedMatrix) and isinstance(second, PackedMatrix):
        assert torch.equal(first.data, second.data)
