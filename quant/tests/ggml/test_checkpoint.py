"""What a checkpoint reads, plain and packed, of every version and type."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy
import pytest
import torch

from bestiary.errors import CheckpointError
from bestiary.sources.folder import Folder
from bestiary_quant.blocks.types import TYPES
from bestiary_quant.ggml import checkpoint
from bestiary_quant.ggml.checkpoint import GgmlCheckpoint
from bestiary_quant.packed import PackedMatrix

EMBEDDING = "model.embed_tokens.weight"
NAMES = {2: "Q4_0_F32", 3: "Q4_1_F32", 4: "Q4_2", 5: "Q4_3", 8: "Q8_0_F32"}


@pytest.fixture
def opened(repository: Callable[[], Folder]) -> Callable[[], GgmlCheckpoint]:
    return lambda: checkpoint.open(repository(), ("model.bin",))


@pytest.mark.parametrize("version", [("ggml", 0), ("ggmf", 1), ("ggjt", 1), ("ggjt", 2), ("ggjt", 3)])
def test_every_type_of_a_version(
    version: tuple[str, int], made: Callable[..., Any], opened: Callable[[], GgmlCheckpoint], writing: ModuleType
) -> None:
    for code in (code for known, code in writing.CASES if known == version):
        case = made(version, code, num_hidden_layers=1)
        found, values = opened(), case.written.values
        assert set(found.names()) == set(values) and found.gguf == "llama"
        expected = NAMES[code] if code in NAMES and version != ("ggjt", 3) else TYPES[code].name
        assert found.dtype(EMBEDDING) == expected and found.dtype("model.norm.weight") == "F32"
        for name in (EMBEDDING, "model.layers.0.mlp.down_proj.weight", "model.norm.weight"):
            read, packed = found.read(name), found.packed(name)
            assert read.shape == found.shape(name) == values[name].shape
            assert numpy.array_equal(read.float().numpy(), values[name]), (version, code, name)
            assert (packed is None) == (code < 2 or "norm" in name)
            if packed is not None:
                assert isinstance(packed, PackedMatrix) and packed.shape == read.shape
                assert torch.equal(packed.dequantize(), read) and packed.nbytes == found.nbytes(name)
                rows = torch.tensor([5, 0, 5])
                assert torch.equal(packed.rows(rows).dequantize(), read[rows])
        found.close()


@pytest.mark.parametrize("code", range(10, 15))
def test_k_quants_are_those_of_gguf(
    code: int, tmp_path: Path, opened: Callable[[], GgmlCheckpoint], made: Callable[..., Any]
) -> None:
    written = made(("ggjt", 3), hidden_size=256, num_hidden_layers=1).written
    kind = gguf.GGMLQuantizationType(code)
    values = {}
    for tensor in written.tensors:
        if len(tensor.shape) == 2 and tensor.shape[1] % 256 == 0:
            drawn = numpy.random.default_rng(code).integers(0, 60, (tensor.shape[0], TYPES[code].row(tensor.shape[1])))
            tensor.code, tensor.data = code, drawn.astype(numpy.uint8).tobytes()
            values[tensor.name] = gguf.quants.dequantize(drawn.astype(numpy.uint8), kind)
    written.write(tmp_path / "model.bin")
    found = opened()
    for name, stored in {
        EMBEDDING: "tok_embeddings",
        "model.layers.0.mlp.up_proj.weight": "layers.0.feed_forward.w3",
    }.items():
        assert found.dtype(name) == kind.name
        assert numpy.array_equal(found.read(name).numpy(), values[f"{stored}.weight"])
    found.close()


def test_blocks_of_today_are_views(made: Callable[..., Any], opened: Callable[[], GgmlCheckpoint]) -> None:
    made(("ggjt", 2), 6)
    found = opened()
    first, second = found.packed(EMBEDDING), found.packed(EMBEDDING)
    assert isinstance(first, PackedMatrix) and isinstance(second, PackedMatrix)
    assert first.data.data_ptr() == second.data.data_ptr()
    found.release()
    found.close()
    with pytest.raises(CheckpointError, match="closed"):
        found.read(EMBEDDING)
    assert torch.equal(first.dequantize(), second.dequantize())


def test_types_of_former_times_cannot_be_taken_for_others(made: Callable[..., Any]) -> None:
    from bestiary_quant.ggml.versions import VERSIONS

    former = {kind for version in VERSIONS for kind in version.types.values() if kind not in TYPES.values()}
    assert {kind.name for kind in former} == set(NAMES.values())
    assert not {kind.code for kind in former} & set(TYPES) and len({kind.code for kind in former}) == len(former)


def test_a_changed_file_is_noticed(made: Callable[..., Any], opened: Callable[[], GgmlCheckpoint]) -> None:
    path = made(("ggjt", 3)).path
    found = opened()
    found.read(EMBEDDING)
    os.truncate(path, path.stat().st_size - 9)
    with pytest.raises(CheckpointError, match="changed"):
        found.release()
    found.close()


def test_unknown_names_come_with_near_ones(made: Callable[..., Any], opened: Callable[[], GgmlCheckpoint]) -> None:
    made(("ggjt", 3))
    found = opened()
    with pytest.raises(CheckpointError, match=r"near names: .*model\.norm\.weight"):
        found.read("model.normal.weight")
    found.close()


def test_frequencies_are_no_weights(
    made: Callable[..., Any], opened: Callable[[], GgmlCheckpoint], writing: ModuleType, tmp_path: Path
) -> None:
    written = made(("ggjt", 3)).written
    for name in ("rope.freqs", "layers.0.attention.inner_attention.rope.freqs"):
        written.tensors.append(writing.Tensor(name, (8,), 0, bytes(32)))
    written.tensors.append(writing.Tensor("strange.weight", (8,), 0, bytes(32)))
    written.write(tmp_path / "model.bin")
    found = opened()
    assert set(found.names()) == {*written.values, "strange.weight"}
    found.close()


def test_scales_in_front_of_a_row_are_refused(
    made: Callable[..., Any], opened: Callable[[], GgmlCheckpoint], tmp_path: Path
) -> None:
    """The layout of the very first files (ggml.c of March 2023, `quantize_row_q4_0`): nothing marks it."""
    written = made(("ggml", 0), 2).written
    tensor = next(tensor for tensor in written.tensors if tensor.name == "tok_embeddings.weight")
    blocks = numpy.frombuffer(tensor.data, numpy.uint8).reshape(tensor.shape[0], -1, 20)
    rows = len(blocks)
    tensor.data = numpy.concatenate((blocks[..., :4].reshape(rows, -1), blocks[..., 4:].reshape(rows, -1)), 1).tobytes()
    written.write(tmp_path / "model.bin")
    found = opened()
    for look in (found.read, found.packed):
        with pytest.raises(CheckpointError, match="scales that are no scales"):
            look(EMBEDDING)
    assert found.read("lm_head.weight").isfinite().all()
    found.close()


def test_one_file_is_a_model(made: Callable[..., Any], repository: Callable[[], Folder]) -> None:
    made(("ggjt", 3))
    with pytest.raises(CheckpointError, match="2 files were named"):
        checkpoint.open(repository(), ("model.bin", "model.bin"))
    with pytest.raises(CheckpointError, match=r"no file 'other\.bin'"):
        checkpoint.open(repository(), ("other.bin",))
    headers = checkpoint.open_header(repository(), ("model.bin",))
    assert headers.shape(EMBEDDING) == (131, 64)
    headers.close()
