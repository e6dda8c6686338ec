"""Dequantised blocks are bit for bit those of gguf's NumPy code and of ggml's C code."""

from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary_quant.blocks.dequantize import dequantize
from bestiary_quant.blocks.types import TYPES, BlockType

BY_NAME = {kind.name: kind for kind in TYPES.values()}
WITHOUT_REFERENCE = ("Q1_0", "Q8_1", "Q8_K")
PACKED = pytest.mark.parametrize(
    "kind",
    [kind for kind in TYPES.values() if kind.packed and kind.name not in WITHOUT_REFERENCE],
    ids=lambda kind: kind.name,
)
HALVES = {  # where 16-bit floats lie in a block
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), (0,)),
    **dict.fromkeys(("IQ1_S", "IQ4_NL", "IQ4_XS"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}
SCALES = (0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF)
"""Zeros, the smallest and largest numbers below the normal ones, one, and the largest, of both signs."""


def bits(values: Any) -> Any:
    return numpy.asarray(values).view(numpy.int32)


def reference(data: numpy.ndarray, kind: BlockType) -> numpy.ndarray:
    with numpy.errstate(all="ignore"):
        values: numpy.ndarray = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(kind.code))
    return values


def random_rows(kind: BlockType, rows: int, blocks: int, seed: int = 0) -> numpy.ndarray:
    """Rows of random blocks whose scales are finite, each of the extreme ones among them."""
    choice = numpy.random.default_rng(seed)
    data = choice.integers(0, 256, (rows * blocks, kind.nbytes), dtype=numpy.uint8)
    for number, place in enumerate(HALVES.get(kind.name, ())):
        scales = choice.standard_normal(len(data)).astype(numpy.float16).view(numpy.uint16)
        scales[: len(SCALES)] = numpy.roll(SCALES, number)[: len(data)]
        data[:, place : place + 2] = scales.view(numpy.uint8).reshape(-1, 2)
    return data.reshape(rows, blocks * kind.nbytes)


@PACKED
def test_random_blocks_and_extreme_scales(kind: BlockType) -> None:
    data = random_rows(kind, 16, 3)
    ours = dequantize(torch.from_numpy(data), kind)
    assert ours.dtype == torch.float32 and ours.shape == (16, 3 * kind.length)
    assert (bits(ours) == bits(reference(data, kind))).all()


@PACKED
@settings(max_examples=20, deadline=None)
@given(raw=st.data())
def test_any_bytes(kind: BlockType, raw: st.DataObject) -> None:
    data = numpy.frombuffer(raw.draw(st.binary(min_size=2 * kind.nbytes, max_size=2 * kind.nbytes)), numpy.uint8)
    ours, theirs = dequantize(torch.tensor(data)[None], kind).numpy(), reference(data[None], kind)
    assert ((bits(ours) == bits(theirs)) | (numpy.isnan(ours) & numpy.isnan(theirs))).all()


@PACKED
def test_slices_of_rows_and_any_leading_shape(kind: BlockType) -> None:
    data = torch.from_numpy(random_rows(kind, 12, 2))
    whole = dequantize(data, kind)
    assert torch.equal(dequantize(data[3:7], kind), whole[3:7])
    assert torch.equal(dequantize(data[::5], kind), whole[::5])
    assert torch.equal(dequantize(data[torch.tensor([7, 0, 7])], kind), whole[[7, 0, 7]])
    assert torch.equal(dequantize(data.view(2, 3, 2, -1), kind), whole.view(2, 3, 2, -1))
    assert torch.equal(dequantize(data[4], kind), whole[4])
    assert dequantize(data[:0], kind).shape == (0, 2 * kind.length)
    assert dequantize(data[1:1].view(0, 2, kind.nbytes), kind).shape == (0, 2, kind.length)


@PACKED
def test_bytes_that_are_not_aligned(kind: BlockType) -> None:
    data = torch.from_numpy(random_rows(kind, 1, 1))
    shifted = torch.cat((torch.zeros(3, dtype=torch.uint8), data[0]))[3:]
    assert torch.equal(dequantize(shifted[None], kind), dequantize(data, kind))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"])
def test_plain_numbers(name: str) -> None:
    kind = BY_NAME[name]
    values = torch.tensor([[0, 1, -2, 100], [3, -4, 5, 127]], dtype=getattr(torch, str(kind.dtype)))
    assert torch.equal(dequantize(values.view(torch.uint8), kind), values.float())


@pytest.mark.parametrize(("name", "scale", "start"), [("Q8_1", "<f2", 4), ("Q8_K", "<f4", 4)])
def test_types_of_activations(name: str, scale: str, start: int) -> None:
    """x = d q, as block_q8_1 and block_q8_K of ggml-common.h say."""
    kind = BY_NAME[name]
    data = numpy.random.default_rng(0).integers(0, 256, (5, kind.nbytes), dtype=numpy.uint8)
    d = numpy.arange(-2, 3).astype(scale) / 8
    data[:, : d.itemsize] = d[:, None].view(numpy.uint8)
    expected = d.astype(numpy.float32)[:, None] * data[:, start : start + kind.length].view(numpy.int8)
    assert (dequantize(torch.from_numpy(data), kind).numpy() == expected).all()


def test_vectors_of_the_c_code(shared_data: Path) -> None:
    vectors = numpy.load(shared_data / "quant" / "ggml_quant_vectors.npz")
    names = [name.removeprefix("q_") for name in vectors if name.startswith("q_")]
    assert len(names) > 25 and "Q1_0" in names
    for name in names:
        ours = dequantize(torch.from_numpy(vectors[f"q_{name}"]), BY_NAME[name.removesuffix("_imatrix")])
        assert (bits(ours) == bits(vectors[f"y_{name}"])).all(), name


def test_more_rows_than_32_bits_can_count() -> None:
    """A view that repeats one row 2^33 times: only what is asked for is made."""
    kind = BY_NAME["Q4_0"]
    row = torch.from_numpy(random_rows(kind, 1, 2))
    many = row.expand(1 << 33, -1)
    assert torch.equal(dequantize(many[(1 << 33) - 2 :], kind), dequantize(row, kind).expand(2, -1))
