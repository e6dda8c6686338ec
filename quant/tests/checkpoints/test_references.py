"""The numbers of packed weights are those of the packages that packed them (see make_references.py)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from bestiary.nn.packed import PackedStack, PackedWeight, is_weight, moved
from bestiary_quant.checkpoints import coded
from bestiary_quant.checkpoints.checkpoint import QuantizedCheckpoint
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack

DATA = Path(__file__).parent / "data"
KINDS = {"autogptq": "GPTQ", "gptqmodel": "GPTQ", "marlin": "MARLIN", "gemm": "AWQ", "gemv": "AWQ", "affine": "AFQ"}
ROUNDED = {"bitsandbytes int8", "compressed_tensors nvfp4"}
"""Where the package multiplies by a reciprocal, or divides, and the other happens here."""
RAGGED = {"bitsandbytes nf4_6x33_64", "hqq 4_0_64", "hqq 4_0_24"}
"""Where groups fit neither rows nor columns, so that a scale is held for each number."""
Loaded = Callable[..., QuantizedCheckpoint]


def cases() -> Iterator[Any]:
    for path in sorted(DATA.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in json.loads(file.metadata()["cases"]):
                yield pytest.param(path, name, id=f"{path.stem} {name}")


@pytest.fixture
def weight(request: pytest.FixtureRequest, loaded: Loaded) -> tuple[QuantizedCheckpoint, torch.Tensor]:
    """The checkpoint of one case beside a plain tensor, and the expected numbers of its weight."""
    path, case = request.param
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["cases"])[case]
        own = [name for name in file.keys() if name.startswith(f"{case}:")]  # noqa: SIM118  (it is no mapping)
        tensors = {name.partition(":")[2]: file.get_tensor(name) for name in own}
    expected = tensors.pop("expected").float()
    return loaded({**tensors, "norm.weight": torch.ones(3)}, config), expected


EVERY = pytest.mark.parametrize(
    "weight",
    [pytest.param(case.values, id=case.id) for case in cases()],
    indirect=True,
)


@EVERY
def test_numbers(weight: tuple[QuantizedCheckpoint, torch.Tensor], request: pytest.FixtureRequest) -> None:
    checkpoint, expected = weight
    assert sorted(checkpoint.names()) == ["layer.weight", "norm.weight"] and checkpoint.unused == ()
    assert checkpoint.shape("layer.weight") == tuple(expected.shape)
    packed = checkpoint.packed("layer.weight")
    assert isinstance(packed, CodedMatrix | CodedStack) and packed.shape == tuple(expected.shape)
    rounded = request.node.callspec.id in ROUNDED
    torch.testing.assert_close(packed.dequantize(), expected, rtol=2e-7 if rounded else 0.0, atol=0.0)
    assert torch.equal(checkpoint.read("layer.weight"), packed.dequantize())
    assert torch.equal(packed.dequantize(torch.bfloat16), packed.dequantize().bfloat16())
    assert torch.equal(packed.to("cpu").dequantize(), packed.dequantize())
    kind = request.node.callspec.id.split()[1].split("_")[0]
    assert checkpoint.dtype("layer.weight").startswith(KINDS.get(kind, ""))
    assert packed.nbytes < expected.nbytes or request.node.callspec.id in RAGGED
    assert checkpoint.packed("norm.weight") is None and torch.equal(checkpoint.read("norm.weight"), torch.ones(3))


@EVERY
def test_products_and_rows(weight: tuple[QuantizedCheckpoint, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, expected = weight
    packed = checkpoint.packed("layer.weight")
    if isinstance(packed, CodedStack):
        stack: PackedStack = packed
        assert len(packed) == len(expected) == stack.shape[0]
        packed, expected = packed[1], packed.dequantize()[1]
    assert isinstance(packed, CodedMatrix)
    held: PackedWeight = packed
    assert is_weight(held)
    expected, columns = packed.dequantize(), expected.shape[1]
    monkeypatch.setattr(coded, "PANEL", 5 * columns)  # five rows: the last panel has fewer
    x = torch.randn(3, columns, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(held.multiply(x).double(), x.double() @ expected.double().T, rtol=0, atol=2e-4)
    half = held.multiply(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, torch.cat([F.linear(x.bfloat16(), part.bfloat16()) for part in expected.split(5)], 1))
    assert torch.equal(packed.dequantize(), expected)
    order = torch.tensor([2, 0, len(expected) - 1, 2])
    assert torch.equal(held.rows(order).dequantize(), expected[order])
    assert torch.equal(held.rows(order).rows(slice(1, 3)).dequantize(), expected[order[1:3]])
    back = moved(held, lambda tensor: tensor.flip(0))
    assert back is not None and torch.equal(back.dequantize(), expected.flip(0))
    assert moved(held, lambda tensor: tensor * 2) is None
