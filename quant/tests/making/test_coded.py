"""Weights with scales of their own: as MLX, the authors of HQQ, transformers and plain formulas have them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F

from bestiary.nn import PackedWeight
from bestiary_quant.checkpoints import coded
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.making.affine import affine
from bestiary_quant.making.hqq import hqq
from bestiary_quant.making.pack import pack
from bestiary_quant.making.schemes import SCHEMES
from bestiary_quant.packed import PackedMatrix

DATA = Path(__file__).with_name("data")
KINDS = pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if scheme.kind is None])


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def made(x: torch.Tensor, name: str) -> CodedMatrix:
    weight = pack(x, name)
    assert isinstance(weight, CodedMatrix)
    return weight


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("group", [32, 64])
def test_afq_is_that_of_mlx(bits: int, group: int, numbers: tuple[torch.Tensor, torch.Tensor]) -> None:
    with numpy.load(DATA / "mlx.npz") as file:
        parts = ("codes", "scales", "offsets", "values")
        codes, scales, offsets, values = (file[f"{bits}_{group}_{part}"] for part in parts)
    data, our_scales, our_offsets = affine(numbers[0][::4], bits, group)
    assert (data.numpy() == codes.view(numpy.uint8)).all()
    assert (our_scales.numpy() == scales).all() and (our_offsets.numpy() == offsets).all()
    read = CodedMatrix(Codes(data, bits, 512), Scaling(our_scales, group, offsets=our_offsets))
    torch.testing.assert_close(read.dequantize()[:1], torch.from_numpy(values), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("axis", [0, 1])
def test_hqq_loses_no_more_than_the_package_of_its_authors(
    bits: int, axis: int, numbers: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x = numbers[0].view(128, 128)
    size, square = json.loads((DATA / "hqq.json").read_text())[f"{bits}_{axis}"]
    whole = x if axis == 0 else torch.cat((x, x[:1]))  # the other axis is for rows that cannot be divided by 64
    error = hqq(whole, bits).dequantize()[:128] - x
    assert error.abs().mean() <= 1.02 * size and error.square().mean() <= 1.02 * square


def test_hqq_groups_rows_that_lie_apart() -> None:
    """As `reshape(64, -1)` groups them: rows r, r + out / 64, ... of a column share a scale."""
    x = torch.zeros(192, 64)
    x[1::3] = torch.linspace(-1, 1, 64)[:, None]
    x[2::3] = 5.0
    weight = hqq(x, 4)
    assert weight.scaling.scales.shape == (3, 64) and weight.scaling.run == 1
    step = 2 / 15
    assert not weight.dequantize()[0::3].any() and torch.equal(weight.dequantize()[2::3], x[2::3])
    assert (weight.dequantize() - x).abs().max() <= step


@pytest.mark.parametrize("block", [None, (128, 128)], ids=["tensor", "blocks"])
def test_fp8_is_that_of_transformers(block: tuple[int, int] | None) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    x = gaussian(256, 384)
    settings = SimpleNamespace(quantization_config=SimpleNamespace(weight_block_size=block, scale_fmt=None))
    convert: Any = Fp8Quantize(settings).convert  # type: ignore[no-untyped-call]
    theirs = convert({"a.weight": x})
    codes, scales = theirs["a.weight"], theirs["a.weight_scale_inv"]
    weight = made(x, "fp8" if block is None else "fp8_blocks")
    assert torch.equal(weight.codes.data.view(torch.uint8), codes.view(torch.uint8))
    torch.testing.assert_close(weight.scaling.scales, scales.view(weight.scaling.scales.shape), rtol=3e-7, atol=0)
    expanded = scales.repeat_interleave(256 // scales.shape[0], 0).repeat_interleave(384 // scales.shape[1], 1)
    torch.testing.assert_close(weight.dequantize(), codes.float() * expanded, rtol=5e-7, atol=0)


def test_fp8_blocks_at_the_edges_are_smaller() -> None:
    x = gaussian(200, 300)
    x[128:, 256:] *= 1000
    weight = made(x, "fp8_blocks")
    assert weight.scaling.scales.shape == (2, 3)
    torch.testing.assert_close(weight.scaling.scales[1, 2], x[128:, 256:].abs().max() / 448, rtol=3e-7, atol=0)
    assert ((weight.dequantize() - x).abs() <= x.abs() / 16 + 1e-6).all()


def test_int8_is_the_nearest_whole_number_of_127ths() -> None:
    x = gaussian(50, 77)
    scale = numpy.abs(x.numpy()).max(1, keepdims=True) / numpy.float32(127)
    weight = made(x, "int8")
    assert (weight.codes.data.numpy() == numpy.rint(x.numpy() / scale)).all()
    assert (weight.dequantize().numpy() == numpy.rint(x.numpy() / scale) * scale).all()


def test_f8q8_has_the_layout_of_mistral_rs_and_divides_by_what_is_read() -> None:
    """BlockF8Q8: one byte of float8 e4m3, 416 times the scale, then 32 signed bytes."""
    x = gaussian(40, 256)
    weight = pack(x, "f8q8")
    assert isinstance(weight, PackedMatrix)
    blocks = weight.data.numpy().reshape(-1, 33)
    code = blocks[:, 0].astype(int)  # no sign: four bits of exponent, three of mantissa
    exponent, mantissa = code >> 3, code & 7
    scale = numpy.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9) / 416
    values = scale[:, None] * blocks[:, 1:].view(numpy.int8)
    numpy.testing.assert_allclose(weight.dequantize().numpy().reshape(-1, 32), values, rtol=3e-7)
    numbers = x.view(-1, 32).double().numpy()
    largest = numpy.abs(numbers).max(1)
    assert (127 * scale >= largest * (1 - 1e-6)).all() and (127 * scale <= largest * 1.13).all()
    assert (numpy.abs(values - numbers) <= scale[:, None] * 0.5001).all()


@KINDS
@pytest.mark.parametrize("shape", [(128, 192), (65, 64), (3, 320)])
def test_products_rows_and_numbers_agree(name: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "PANEL", 5 * shape[1])  # the last panel is shorter
    x = gaussian(*shape)
    weight = made(x, name)
    held: PackedWeight = weight
    plain = held.dequantize()
    assert plain.dtype == torch.float32 and held.shape == shape == tuple(plain.shape)
    for tokens in (0, 1, 7):
        y = gaussian(tokens, shape[1], seed=1) * 50
        torch.testing.assert_close(held.multiply(y).double(), y.double() @ plain.double().T, rtol=0, atol=1e-5)
        half = held.multiply(y.bfloat16())
        assert half.dtype == torch.bfloat16
        parts = [F.linear(y.bfloat16(), part.bfloat16()) for part in torch.split(plain, 5)]
        assert torch.equal(half, torch.cat(parts, 1))
    index = torch.tensor([shape[0] - 1, 0, 2, 2])
    assert torch.equal(weight.rows(index).dequantize(), plain[index])
    assert torch.equal(weight.rows(index).rows(torch.tensor([1, 3])).dequantize(), plain[[0, 2]])
    part = weight.rows(slice(1, 3))
    assert torch.equal(part.dequantize(), plain[1:3]) and part.shape == (2, shape[1])
    assert part.codes.data.data_ptr() == weight.codes.data[1:].data_ptr()
    assert torch.equal(weight.to("cpu").dequantize(torch.bfloat16), plain.bfloat16())
    with pytest.raises(IndexError):
        weight.rows(torch.tensor([shape[0]]))


@KINDS
def test_bytes_are_those_of_the_table(name: str) -> None:
    """Beside the codes and scales only the row of scales of each row is held, 8 bytes."""
    weight = made(gaussian(1024, 1024), name)
    assert SCHEMES[name].bits <= weight.nbytes * 8 / 2**20 <= SCHEMES[name].bits + 0.07


@KINDS
def test_a_stack_of_experts_is_each_of_them(name: str) -> None:
    experts = torch.stack([gaussian(128, 192, seed) * (seed + 1) for seed in range(3)])
    stack = pack(experts, name, torch.ones(3, 192))
    assert isinstance(stack, CodedStack) and stack.shape == (3, 128, 192)
    for number, expert in enumerate(experts):
        alone = made(expert, name)
        assert torch.equal(stack[number].dequantize(), alone.dequantize())
    assert torch.equal(stack.dequantize()[2], stack[2].dequantize())
