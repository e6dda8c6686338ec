"""Blocks have the bytes of gguf and llama.cpp where these only round, and elsewhere as little error as theirs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch

from bestiary_quant.blocks.dequantize import dequantize
from bestiary_quant.blocks.types import TYPES, BlockType
from bestiary_quant.making.pack import pack
from bestiary_quant.packed import PackedMatrix

BY_NAME = {kind.name: kind for kind in TYPES.values()}
ROUNDED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "TQ1_0", "TQ2_0")
SEARCHED = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
WEIGHTED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", *SEARCHED)
SOURCES = {"gaussian": slice(0, 8), "tails": slice(8, 16), "demo": slice(16, 24), "stories": slice(24, 32)}


def packed(x: torch.Tensor, name: str, importance: torch.Tensor | None = None) -> PackedMatrix:
    made = pack(x, name, importance)
    assert isinstance(made, PackedMatrix) and made.kind == BY_NAME[name]
    return made


def worth(values: torch.Tensor, x: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    """The squared errors of each row, weighted."""
    square = (values.double() - x.double()).square()
    return (square if importance is None else square * importance).sum(1)


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_types_have_the_bytes_of_gguf(name: str) -> None:
    choice = numpy.random.default_rng(0)
    x = (
        choice.standard_normal((64, 1024)).astype(numpy.float32)
        * numpy.logspace(-3, 3, 64, dtype=numpy.float32)[:, None]
    )
    x[::7] = numpy.abs(x[::7])
    x[::5, ::3] = 0
    x[3, 32:64] = 0
    x[4, :] = -x[4, ::-1]  # the largest sizes of a block come with both signs
    x[5, 1::2] = -x[5, 0::2]
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
    assert torch.equal(packed(torch.from_numpy(x), name).data, torch.from_numpy(theirs))


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_types_have_the_bytes_of_llama_cpp(
    name: str, numbers: tuple[torch.Tensor, torch.Tensor], llama_cpp: Mapping[str, Any]
) -> None:
    ours, theirs = packed(numbers[0], name).data, llama_cpp[name]
    # Whether a product and a sum are rounded once or twice depends on the processor that llama.cpp ran on.
    assert (ours != theirs).float().mean() <= (5e-4 if name in ("Q4_0", "Q5_0") else 0)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", SEARCHED)
def test_searched_types_lose_no_more_than_llama_cpp(
    name: str, source: str, numbers: tuple[torch.Tensor, torch.Tensor], llama_cpp: Mapping[str, Any]
) -> None:
    x, rows = numbers[0], SOURCES[source]
    ours = worth(packed(x, name).dequantize(), x, None)[rows].sum()
    theirs = worth(dequantize(llama_cpp[name], BY_NAME[name]), x, None)[rows].sum()
    assert ours <= 1.02 * theirs


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", WEIGHTED)
def test_with_importance_the_weighted_loss_is_no_more_than_that_of_llama_cpp(
    name: str, source: str, numbers: tuple[torch.Tensor, torch.Tensor], llama_cpp: Mapping[str, Any]
) -> None:
    (x, importance), rows = numbers, SOURCES[source]
    ours = worth(packed(x, name, importance).dequantize(), x, importance)[rows].sum()
    theirs = worth(dequantize(llama_cpp[f"{name}_weighted"], BY_NAME[name]), x, importance)[rows].sum()
    plain = worth(packed(x, name).dequantize(), x, importance)[rows].sum()
    assert ours <= 1.02 * theirs and ours < plain


@pytest.mark.parametrize("name", [*(f"{name}_weighted" for name in WEIGHTED), *SEARCHED])
def test_most_bytes_are_those_of_llama_cpp(
    name: str, numbers: tuple[torch.Tensor, torch.Tensor], llama_cpp: Mapping[str, Any]
) -> None:
    """The method is the same, and only near ties fall differently."""
    x, importance = numbers
    kind = name.removesuffix("_weighted")
    ours = packed(x, kind, importance if name != kind else None).data
    assert (ours == llama_cpp[name]).float().mean() > 0.97


def test_vectors_of_the_c_code(shared_data: Path) -> None:
    """Rows of 256 from trained weights, of the scalar C code without fused arithmetic."""
    with numpy.load(shared_data / "quant" / "ggml_quant_vectors.npz") as file:
        vectors = {name: torch.from_numpy(file[name]) for name in file}
    x = vectors["x"]
    for name in (*ROUNDED, *SEARCHED, "IQ4_NL_imatrix", "IQ4_XS_imatrix"):
        kind = name.removesuffix("_imatrix")
        importance = vectors["imatrix"] if name != kind else None
        made = packed(x, kind, importance)
        theirs = worth(vectors[f"y_{name}"], x, importance).sum()
        assert worth(made.dequantize(), x, importance).sum() <= 1.005 * theirs, name
        if kind in ROUNDED or importance is not None:
            assert torch.equal(made.data, vectors[f"q_{name}"]), name


@pytest.mark.parametrize("kind", [kind for kind in TYPES.values() if kind.name in (*ROUNDED, *SEARCHED)], ids=str)
def test_gguf_reads_the_same_numbers(kind: BlockType, numbers: tuple[torch.Tensor, torch.Tensor]) -> None:
    made = packed(numbers[0], kind.name, numbers[1])
    theirs = gguf.quants.dequantize(made.data.numpy(), gguf.GGMLQuantizationType(kind.code))
    assert torch.equal(made.dequantize(), torch.from_numpy(theirs))


@pytest.mark.parametrize("name", ["Q8_1", "Q8_K"])
def test_types_of_activations(name: str, numbers: tuple[torch.Tensor, torch.Tensor]) -> None:
    """No package writes them; the formulas are those of ggml-quants.c, in NumPy."""
    x = numbers[0].numpy()
    data = packed(numbers[0], name).data.numpy().reshape(-1, BY_NAME[name].nbytes)
    if name == "Q8_1":
        blocks = x.reshape(-1, 32)
        d = numpy.abs(blocks).max(1) / numpy.float32(127)
        q = blocks * (numpy.float32(1) / d)[:, None]
        q = numpy.sign(q) * numpy.floor(numpy.abs(q) + numpy.float32(0.5))
        assert (data[:, :4].copy().view(numpy.float16) == numpy.stack([d, d * q.sum(1)], 1).astype(numpy.float16)).all()
        assert (data[:, 4:].view(numpy.int8) == q).all()
        return
    blocks = x.reshape(-1, 256)
    top = numpy.take_along_axis(blocks, numpy.abs(blocks).argmax(1)[:, None], 1)
    inverse = numpy.float32(-127) / top
    q = numpy.minimum(numpy.rint(inverse * blocks), 127)
    assert (data[:, :4].copy().view(numpy.float32) == 1 / inverse).all()
    assert (data[:, 4:260].view(numpy.int8) == q).all()
    assert (data[:, 260:].copy().view(numpy.int16) == q.reshape(-1, 16, 16).sum(2)).all()
