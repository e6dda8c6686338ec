"""What mistral.rs wrote, read: the numbers against the gguf package and plain NumPy, the answers against mistral.rs."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bestiary.errors import CheckpointError
from bestiary.nn import Embedding, Linear
from bestiary.sources.folder import Folder
from bestiary_quant.blocks.dequantize import dequantize
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.making.pack import pack
from bestiary_quant.making.schemes import F8Q8
from bestiary_quant.packed import PackedMatrix, PackedStack
from bestiary_quant.uqff import checkpoint, selection
from bestiary_quant.uqff.form import VERSION, VERSION_KEYS

Opened = Callable[[Path], checkpoint.UqffCheckpoint]
Stored = dict[str, numpy.ndarray[Any, Any]]


def stored(folder: Path) -> Stored:
    """The entries of the shard, as the safetensors package reads them."""
    with safe_open(next(folder.glob("*.uqff")), "pt") as file:
        return {
            name: tensor.view(torch.uint8).numpy() if tensor.dtype.itemsize == 1 else tensor.numpy()
            for name in file.keys()  # noqa: SIM118  (it has no other way)
            for tensor in [file.get_tensor(name)]
        }


@pytest.mark.parametrize("label", ["q4k", "codes", "blocks"])
def test_every_weight_has_its_published_name_and_shape(
    label: str, data: Path, tiny: ModuleType, opened: Opened
) -> None:
    made = opened(data / label)
    expected = tiny.weights(tiny.QWEN2 if label == "q4k" else tiny.SMALL)
    assert made.version == (1, 2, 0)
    assert {name: made.shape(name) for name in made.names()} == {
        name: tuple(tensor.shape) for name, tensor in expected.items()
    }
    for name, tensor in expected.items():
        close = {"Q2_K": 0.3, "AFQ2": 0.46, "Q3_K": 0.16, "AFQ3": 0.2, "MXFP4": 0.21}.get(made.dtype(name), 0.1)
        assert (made.read(name) - tensor).norm() < close * tensor.norm(), name
        if tensor.ndim == 1:
            assert torch.equal(made.read(name), tensor)
            assert made.packed(name) is None


def test_types_are_told(data: Path, opened: Opened) -> None:
    made = opened(data / "codes")
    assert {name.rpartition(".")[0].rpartition(".")[2]: made.dtype(name) for name in made.layers} == {
        "embed_tokens": "AFQ8",
        "q_proj": "HQQ4",
        "k_proj": "MXFP4",
        "v_proj": "FP8",
        "o_proj": "AFQ4",
        "gate_proj": "HQQ8",
        "up_proj": "AFQ3",
        "down_proj": "AFQ2",
    }
    assert opened(data / "q4k").dtype("model.layers.0.self_attn.q_proj.bias") == "F32"


@pytest.mark.parametrize("label", ["q4k", "blocks"])
def test_blocks_are_those_of_ggml(label: str, data: Path, opened: Opened) -> None:
    raw, made = stored(data / label), opened(data / label)
    assert len(made.layers) == 8
    for name, layer in made.layers.items():
        kind = gguf.GGMLQuantizationType(int(raw[f"{name}.dtype"]))
        expected = gguf.dequantize(raw[name].reshape(layer.weight.shape[0], -1), kind)
        packed = made.packed(name)
        assert isinstance(packed, PackedMatrix) and packed.kind.name == kind.name
        assert numpy.array_equal(packed.dequantize().numpy(), expected)
        assert torch.equal(made.read(name), packed.dequantize())


def codes_of(words: numpy.ndarray[Any, Any], bits: int, columns: int) -> numpy.ndarray[Any, Any]:
    """A string of bits in words of 32, lowest first."""
    string = numpy.unpackbits(words.view(numpy.uint8), axis=-1, bitorder="little")[:, : columns * bits]
    return (string.reshape(len(words), columns, bits) << numpy.arange(bits)).sum(-1)


def formula(raw: Stored, name: str, shape: tuple[int, int]) -> numpy.ndarray[Any, Any]:
    """The numbers of a layer in float64."""
    weight, family = raw[name], int(raw[f"{name}.format"])
    if family == 4:
        bits, group = int(raw[f"{name}.bits"]), int(raw[f"{name}.group_size"])
        scale, bias = (raw[f"{name}.{role}"].astype(float).repeat(group, 1) for role in ("scales", "biases"))
        return codes_of(weight, bits, shape[1]) * scale + bias
    if family == 2:
        bits, scale, zero = (raw[f"{name}.{role}"] for role in ("bits", "scales", "zeros"))
        codes = weight if bits == 8 else numpy.concatenate((weight >> 4, weight & 15))
        return ((codes.astype(float) - zero) * scale).reshape(shape)
    if family == 3:
        sign, exponent, mantissa = weight >> 7, (weight >> 3 & 15).astype(int), (weight & 7).astype(float)
        size = numpy.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)
        return (1 - 2.0 * sign) * size * raw[f"{name}.dequant_w_scale"]
    assert family == 6
    table = numpy.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    table = numpy.concatenate((table, -table))
    numbers = numpy.stack((table[weight & 15], table[weight >> 4]), -1).reshape(shape)
    return numbers * 2.0 ** (raw[f"{name}.scales"].astype(int) - 127).repeat(32, 1)


def test_codes_are_those_of_mistralrs(data: Path, opened: Opened) -> None:
    raw, made = stored(data / "codes"), opened(data / "codes")
    for name, layer in made.layers.items():
        packed = made.packed(name)
        assert isinstance(packed, CodedMatrix)
        expected = formula(raw, name, layer.weight.shape[:2])
        numpy.testing.assert_allclose(packed.dequantize().numpy(), expected, rtol=2e-7, atol=3e-7)


@pytest.mark.parametrize(("label", "close"), [("q4k", 0.2), ("codes", 2e-5), ("blocks", 0.3)])
def test_answers_are_those_of_mistralrs(
    label: str, close: float, data: Path, references: dict[str, Any], running: ModuleType
) -> None:
    # mistral.rs multiplies blocks of ggml with activations in eight bits, so that only codes can be compared closely.
    model = running.built(data / label)
    assert all(m.packed is not None for m in model.modules() if isinstance(m, Linear | Embedding))
    prompt = running.tokens(data / label, references["prompt"])
    far, same = running.difference(model, prompt, references["answers"][label])
    assert same and far < close


def test_packed_weights_view_the_file(data: Path, opened: Opened) -> None:
    for label in ("q4k", "codes"):
        made = opened(data / label)
        for name, layer in made.layers.items():
            first, second = made.packed(name), made.packed(name)
            places = [
                part.data.data_ptr() if isinstance(part, PackedMatrix) else part.codes.data.data_ptr()
                for part in (first, second)
                if isinstance(part, PackedMatrix | CodedMatrix)
            ]
            assert (places[0] == places[1]) == (layer.weight.kind != "HQQ4"), name
        before = first.dequantize() if first is not None else torch.empty(0)
        made.release()
        made.close()
        assert first is not None and torch.equal(first.dequantize(), before)
        with pytest.raises(CheckpointError, match="closed"):
            made.packed(name)


def test_an_unknown_name(data: Path, opened: Opened) -> None:
    with pytest.raises(CheckpointError, match=r"no weight 'lm_haed.weight'"):
        opened(data / "q4k").read("lm_haed.weight")


def test_headers_before_the_files_are_fetched(data: Path, opened: Opened) -> None:
    repository = Folder(data / "blocks", "test")
    names = selection.files(repository)
    with_data, without = opened(data / "blocks"), checkpoint.open_header(repository, names)
    assert [(name, without.shape(name), without.dtype(name), without.nbytes(name)) for name in without.names()] == [
        (name, with_data.shape(name), with_data.dtype(name), with_data.nbytes(name)) for name in with_data.names()
    ]
    with pytest.raises(CheckpointError, match="beginnings"):
        without.read("model.norm.weight")


def folder_of(folder: Path, **layers: dict[str, torch.Tensor]) -> Path:
    """A folder with one shard of these layers and an empty residual."""
    entries = {
        f"{key}.weight" + (f".{end}" if end else ""): tensor
        for key, its in layers.items()
        for end, tensor in its.items()
    }
    entries |= {key: torch.tensor(value, dtype=torch.uint32) for key, value in zip(VERSION_KEYS, VERSION, strict=True)}
    save_file({name: tensor.clone() for name, tensor in entries.items()}, folder / "x-0.uqff")
    save_file({"norm.weight": torch.ones(4)}, folder / "residual.safetensors")
    return folder


def u8(value: int) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.uint8)


def u32(*values: int, listed: bool = False) -> torch.Tensor:
    return torch.tensor(values if listed else values[0], dtype=torch.uint32)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("bits", "each"), [(1, 8), (2, 4), (3, 10), (4, 2), (8, 1)])
def test_hqq_of_all_bits_and_axes(bits: int, each: int, axis: int, tmp_path: Path, opened: Opened) -> None:
    """Rows of groups are packed with a step (`hqq/core/bitpack.py`), the first in the highest bits."""
    random = numpy.random.RandomState(bits)
    out, columns, size = 24, 40, 20
    lines = size if axis == 0 else out * columns // size
    width = out * columns // lines
    codes = random.randint(0, 1 << bits, (lines, width))
    kind = numpy.int32 if bits == 3 else numpy.uint8
    steps = -(-lines // each)
    padded = numpy.concatenate((codes, numpy.zeros((steps * each - lines, width), int))).reshape(each, steps, width)
    elements = sum(padded[i].astype(kind) << bits * (each - 1 - i) for i in range(each)).astype(kind)
    parts = [random.standard_normal((1, width) if axis == 0 else (lines, 1)).astype(numpy.float32) for _ in range(2)]
    layer = {
        "": torch.from_numpy(elements),
        "format": u8(2),
        "scales": torch.from_numpy(parts[0]),
        "zeros": torch.from_numpy(parts[1]),
        "shape": u32(out, columns, listed=True),
        "bits": u8(bits),
        "group_size": u32(size),
        "axis": u8(axis),
        "optimization_steps": u32(0),
        "round_zeros": u8(0),
        "channel_wise": u8(1),
    }
    made = opened(folder_of(tmp_path, layer=layer))
    expected = ((codes - parts[1]) * parts[0]).reshape(out, columns)
    assert made.dtype("layer.weight") == f"HQQ{bits}"
    numpy.testing.assert_allclose(made.read("layer.weight").numpy(), expected, rtol=3e-7, atol=1e-6)


def test_plain_layers(tmp_path: Path, opened: Opened) -> None:
    weight = torch.arange(12, dtype=torch.float16).view(3, 4)
    in_bytes = {"": weight.view(torch.uint8).flatten(), "dtype": u32(1), "shape": u32(3, 4, listed=True)}
    made = opened(
        folder_of(
            tmp_path,
            a={"": weight.bfloat16(), "format": u8(1)},
            b={**in_bytes, "format": u8(0)},
            c={"": weight[None].float(), "format": u8(1)},
        )
    )
    assert (made.dtype("a.weight"), made.dtype("b.weight"), made.dtype("c.weight")) == ("BF16", "F16", "F32")
    for name in ("a.weight", "b.weight", "c.weight"):
        assert made.packed(name) is None
        assert torch.equal(made.read(name).view(3, 4).half(), weight)


def test_experts_are_called_as_their_parameters(tmp_path: Path, opened: Opened) -> None:
    packed = pack(torch.randn(3, 4, 64), "q8_0")
    assert isinstance(packed, PackedStack)
    layer = {
        "": packed.data.flatten(),
        "format": u8(0),
        "dtype": u32(packed.kind.code),
        "shape": u32(3, 4, 64, listed=True),
    }
    keys = {"model.layers.3.block_sparse_moe.experts.up_proj": layer, "model.layers.4.mlp.experts.down_proj": layer}
    made = opened(folder_of(tmp_path, **keys))
    assert set(made.layers) == {"model.layers.3.mlp.experts.up_proj", "model.layers.4.mlp.experts.down_proj"}
    for name in made.layers:
        stack = made.packed(name)
        assert made.shape(name) == (3, 4, 64) and isinstance(stack, PackedStack)
        assert torch.equal(stack[1].dequantize(), packed[1].dequantize())


def scale_of_f8q8() -> float:
    """What the float8 number 1 means as the scale of a block."""
    block = torch.tensor([[0x38, *[1] * 32]], dtype=torch.uint8)
    return float(dequantize(block, F8Q8)[0, 0])


def test_f8q8_of_mistralrs(references: dict[str, Any]) -> None:
    """The largest float8 of the crate that it uses (float8 0.7) is 416, so that x = d / 416 q."""
    assert scale_of_f8q8() == pytest.approx(1 / 416)
    blocks = torch.frombuffer(bytearray.fromhex(references["f8q8"]["blocks"]), dtype=torch.uint8).view(8, 33)
    expected = torch.tensor(references["f8q8"]["numbers"])
    made = dequantize(blocks, F8Q8).flatten()
    assert (made - expected).norm() < 0.035 * expected.norm()


def test_f8q8_whose_blocks_go_on_in_the_next_row(tmp_path: Path, opened: Opened) -> None:
    """mistral.rs parts the whole weight into blocks, and fills the last with zeros."""
    packed = pack(torch.randn(1, 96), "f8q8")
    assert isinstance(packed, PackedMatrix)
    layer = {"": packed.data.flatten(), "format": u8(5), "num_blocks": u32(3), "shape": u32(4, 20, listed=True)}
    made = opened(folder_of(tmp_path, layer=layer))
    assert torch.equal(made.read("layer.weight"), packed.dequantize().flatten()[:80].view(4, 20))
    assert made.dtype("layer.weight") == "F8Q8"
