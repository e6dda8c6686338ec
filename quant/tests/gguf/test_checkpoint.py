"""What a checkpoint reads is what the gguf package reads, plain and packed, from one file and from many."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file

from bestiary.errors import CheckpointError
from bestiary.nn.packed import moved
from bestiary.opening import choose_loader
from bestiary.records import resolve
from bestiary.registry import discover
from bestiary.sources.folder import Folder
from bestiary.testing.reference import make_reference
from bestiary.testing.tiny import decoder
from bestiary_quant.blocks.types import TYPES
from bestiary_quant.gguf import checkpoint, parts
from bestiary_quant.gguf.checkpoint import GgufCheckpoint
from bestiary_quant.packed import PackedMatrix, PackedStack

Opened = Callable[..., GgufCheckpoint]
STORED = [kind for kind in TYPES.values() if kind.name not in ("Q8_1", "Q8_K", "Q1_0")]


@pytest.fixture
def opened(repository: Callable[[], Folder]) -> Opened:
    """The checkpoint of these files of the test's folder."""
    return lambda *names: checkpoint.open(repository(), names or ("a.gguf",))


def blocks(kind: Any, *shape: int) -> numpy.ndarray:
    """Random bytes of a tensor of this shape, its numbers finite."""
    made = numpy.random.default_rng(0).integers(0, 60, (*shape[:-1], kind.row(shape[-1])), dtype=numpy.uint8)
    return made.view(str(kind.dtype)) if kind.dtype not in (None, "bfloat16") else made


def write_all(path: Path, converting: ModuleType, *lead: int) -> dict[str, numpy.ndarray]:
    """A file with a tensor [*lead, 512] of every type; returns their numbers by type, as gguf reads them."""
    writer = gguf.GGUFWriter(path, "newt")
    for kind in STORED:
        writer.add_tensor(kind.name, blocks(kind, *lead, 512), raw_dtype=Type(kind.code))
    converting.write(writer, path)
    return {
        tensor.name: tensor.data if TYPES[tensor.tensor_type].dtype not in (None, "bfloat16")
        else gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in gguf.GGUFReader(path).tensors
    }  # fmt: skip


@pytest.mark.parametrize("lead", [(), (5,), (3, 2), (2, 1, 3)])
def test_every_type_in_every_shape(
    lead: tuple[int, ...], tmp_path: Path, converting: ModuleType, opened: Opened
) -> None:
    expected = write_all(tmp_path / "a.gguf", converting, *lead)
    found = opened()
    assert found.names() == tuple(expected) and len(expected) > 30
    for kind in STORED:
        name = kind.name
        assert found.shape(name) == (*lead, 512) and found.dtype(name) == name
        assert found.nbytes(name) == blocks(kind, *lead, 512).nbytes
        read, packed = found.read(name), found.packed(name)
        assert read.shape == (*lead, 512)
        plain = read.float() if kind.dtype == "bfloat16" else read
        assert (plain.numpy() == expected[name].reshape(plain.shape)).all(), name
        assert str(read.dtype) == f"torch.{kind.dtype or 'float32'}"
        assert type(packed) is {1: PackedMatrix, 2: PackedStack}.get(len(lead), type(None)) or not kind.packed
        if packed is not None:
            assert kind.packed and packed.shape == (*lead, 512) and torch.equal(packed.dequantize(), read)
    found.close()


def test_nothing_is_copied(tmp_path: Path, converting: ModuleType, opened: Opened) -> None:
    write_all(tmp_path / "a.gguf", converting, 5)
    found = opened()
    assert found.read("F32").data_ptr() == found.read("F32").data_ptr()
    first, second = found.packed("Q4_K"), found.packed("Q4_K")
    assert first is not None and second is not None and first.data.data_ptr() == second.data.data_ptr()
    found.close()


def test_packed_weights_outlive_the_checkpoint(tmp_path: Path, converting: ModuleType, opened: Opened) -> None:
    expected = write_all(tmp_path / "a.gguf", converting, 5)
    found = opened()
    packed = found.packed("Q6_K")
    found.release()
    found.close()
    del found
    assert packed is not None and (packed.dequantize().numpy() == expected["Q6_K"]).all()


def test_after_the_end_nothing_is_read(tmp_path: Path, converting: ModuleType, opened: Opened) -> None:
    write_all(tmp_path / "a.gguf", converting, 5)
    found = opened()
    found.close()
    found.close()
    found.release()
    for read in (found.read, found.packed):
        with pytest.raises(CheckpointError, match="closed"):
            read("Q4_0")
    assert found.shape("Q4_0") == (5, 512) and found.config["general.architecture"] == "newt"


@pytest.mark.parametrize("change", ["appended", "truncated", "rewritten"])
def test_a_changed_file_is_noticed(change: str, tmp_path: Path, converting: ModuleType, opened: Opened) -> None:
    path = tmp_path / "a.gguf"
    write_all(path, converting, 5)
    found = opened()
    found.read("F32")
    if change == "rewritten":
        os.utime(path, ns=(1, 1))
    else:
        os.truncate(path, path.stat().st_size + {"appended": 9, "truncated": -9}[change])
    for look in (lambda: found.read("Q4_0"), lambda: found.packed("Q4_0"), found.release):
        with pytest.raises(CheckpointError, match="changed"):
            look()
        found._parts[0].mapped._read = True  # type: ignore[union-attr]
    found.close()


def test_a_header_is_parsed_once_for_a_repository(
    tmp_path: Path, converting: ModuleType, repository: Callable[[], Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    parse = parts.parse

    def counted(data: Any, size: int, origin: str) -> Any:
        calls.append(origin)
        return parse(data, size, origin)

    monkeypatch.setattr(parts, "parse", counted)
    write_all(tmp_path / "a.gguf", converting, 2)
    folder = repository()
    with closing(checkpoint.open(folder, ("a.gguf",))) as first:
        names = first.names()
    with closing(checkpoint.open(folder, ("a.gguf",))) as again:
        assert again.names() == names and again.config["general.architecture"] == "newt"
        assert torch.equal(again.read("F32"), torch.from_numpy(blocks(TYPES[0], 2, 512)).view(torch.float32))
    assert len(calls) == 1
    checkpoint.open(repository(), ("a.gguf",)).close()
    assert len(calls) == 2  # another repository knows nothing of it
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "eft")
    writer.add_tensor("other", blocks(TYPES[0], 512), raw_dtype=Type(0))
    converting.write(writer, tmp_path / "b.gguf")
    (tmp_path / "b.gguf").replace(tmp_path / "a.gguf")
    with closing(checkpoint.open(folder, ("a.gguf",))) as replaced:
        assert replaced.names() == ("other",) and replaced.config["general.architecture"] == "eft"


def test_unknown_names_come_with_near_ones(tmp_path: Path, converting: ModuleType, opened: Opened) -> None:
    write_all(tmp_path / "a.gguf", converting, 5)
    found = opened()
    for look in (found.shape, found.dtype, found.nbytes, found.read, found.packed):
        with pytest.raises(CheckpointError, match=r"no tensor 'IQ4_NX'; near names: .*IQ4_NL"):
            look("IQ4_NX")
    found.close()


def test_names_are_those_of_hugging_face(tmp_path: Path, converting: ModuleType, opened: Opened) -> None:
    reference = make_reference(decoder("Qwen3ForCausalLM", "qwen3", head_dim=16), tmp_path / "hf")
    converting.convert(reference, tmp_path / "a.gguf", Type.Q8_0)
    found, stored = opened(), load_file(reference.folder / "model.safetensors")
    assert set(found.names()) == set(stored) and found.gguf == "qwen3"
    for name, tensor in stored.items():
        values = tensor.numpy()
        if found.dtype(name) == "Q8_0":
            values = gguf.quants.dequantize(gguf.quants.quantize(values, Type.Q8_0), Type.Q8_0)
        assert (found.read(name).numpy() == values).all(), name
    found.close()


def test_two_tensors_of_one_name_are_an_error(tmp_path: Path, converting: ModuleType, opened: Opened) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("output.weight", numpy.ones(4, numpy.float32))
    writer.add_tensor("lm_head.weight", numpy.ones(4, numpy.float32))
    converting.write(writer, tmp_path / "a.gguf")
    with pytest.raises(CheckpointError, match=r"would be 'lm_head\.weight'"):
        opened()


# Split files


@pytest.fixture
def split(tmp_path: Path, converting: ModuleType) -> list[str]:
    """The names of the parts of a model, written by the gguf package, and `whole.gguf` beside them."""
    reference = make_reference(decoder("LlamaForCausalLM", "llama"), tmp_path / "hf")
    converting.convert(reference, tmp_path / "whole.gguf", Type.Q4_0)
    converting.convert(reference, tmp_path / "a.gguf", Type.Q4_0, split_max_tensors=12)
    names = sorted(path.name for path in tmp_path.glob("a-*.gguf"))
    assert names == [f"a-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    return names


def test_parts_are_one_checkpoint(split: list[str], opened: Opened) -> None:
    whole, parts = opened("whole.gguf"), opened(*split)
    assert parts.names() == whole.names() and parts.gguf == "llama"
    for name in whole.names():
        assert torch.equal(parts.read(name), whole.read(name))
    whole.close()
    parts.close()


@pytest.mark.parametrize("taken", [[1, 0, 2], [0, 1], [0], [1], [0, 0, 2], [0, 2, 1]])
def test_parts_that_are_not_one_model(taken: list[int], split: list[str], opened: Opened) -> None:
    with pytest.raises(CheckpointError, match=r"it is part|two files") as caught:
        opened(*(split[number] for number in taken))
    assert "fetch all parts again" in str(caught.value.fix)


def test_a_part_of_another_model(split: list[str], tmp_path: Path, converting: ModuleType, opened: Opened) -> None:
    larger = make_reference(decoder("LlamaForCausalLM", "llama", num_hidden_layers=4), tmp_path / "other")
    converting.convert(larger, tmp_path / "b.gguf", Type.Q4_0, split_max_tensors=14)
    (tmp_path / split[2]).write_bytes((tmp_path / "b-00003-of-00003.gguf").read_bytes())
    with pytest.raises(CheckpointError, match=r"The parts announce 30 or 39 tensors and hold|two files"):
        opened(*split)


# What is no file


@pytest.mark.parametrize("kind", ["absent", "folder", "pipe", "empty"])
def test_what_is_no_weight_file(kind: str, tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "a.gguf"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    with pytest.raises(CheckpointError):
        opened()


# As a plugin


def test_the_registry_has_the_format(split: list[str], tmp_path: Path) -> None:
    points = [
        EntryPoint("core", "bestiary.builtin", "bestiary"),
        EntryPoint("quant", "bestiary_quant", "bestiary"),
    ]
    registry = discover(points=points)
    assert not registry.broken
    (tmp_path / "whole.gguf").unlink()
    folder = Folder(tmp_path, "test", depth=1)
    loader, names = choose_loader(folder, registry)
    assert loader.name == "gguf" and names == tuple(split)
    assert resolve(str(loader.identify))(folder, split[2]).gguf == "llama"
    opened, headers = resolve(loader.open)(folder, names), resolve(str(loader.headers))(folder, names)
    assert opened.names() == headers.names() and len(opened.names()) == 30
    opened.close()
    headers.close()


def test_real_weights(shared_data: Path) -> None:
    """A model that llama.cpp's converter wrote, against the same weights as safetensors."""
    stories = shared_data / "weights" / "stories260K"
    stored = load_file(stories / "hf" / "model.safetensors")
    config = json.loads((stories / "hf" / "config.json").read_text())

    def put_back(tensor: torch.Tensor, heads: int) -> torch.Tensor:
        return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)

    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name in ("f32", "q8_0"):
        found = checkpoint.open(Folder(stories / "gguf", "stories"), (f"stories260K-{name}.gguf",))
        assert set(found.names()) == set(stored) - {"lm_head.weight"}
        for tensor in found.names():
            plain, packed = found.read(tensor), found.packed(tensor)
            turned = next((count for part, count in heads.items() if part in tensor), None)
            if turned is not None:
                if packed is not None:
                    assert isinstance(packed, PackedMatrix)
                    packed = moved(packed, lambda values, count=turned: put_back(values, count))  # type: ignore[misc]
                    assert packed is not None and torch.equal(packed.dequantize(), put_back(plain, turned))
                plain = put_back(plain, turned)
            if packed is None and found.dtype(tensor) == "F32":
                assert torch.equal(plain, stored[tensor])
            else:
                assert (plain.float() - stored[tensor]).abs().max() < 0.01 * stored[tensor].abs().max()
        found.close()
