"""Which files of a repository are the model, and several of them opened as one."""

import json
import lzma
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bestiary.checkpoints import safetensors_checkpoint, safetensors_index
from bestiary.errors import CheckpointError, UnsafeName, WeightMismatch


def shards(folder: Path, **tensors: dict[str, torch.Tensor]) -> None:
    for name, content in tensors.items():
        save_file(content, folder / f"{name.replace('_', '-')}.safetensors")


def write_index(folder: Path, places: object, name: str = "model") -> None:
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    shards(tmp_path, model_00001_of_00002={"a": torch.ones(2), "b": torch.ones(3, 2)})
    shards(tmp_path, model_00002_of_00002={"c": torch.ones(4, dtype=torch.int8)})
    write_index(tmp_path, {"a": A, "b": A, "c": B})
    return tmp_path


def test_shards_saved_by_transformers(tmp_path: Path, folder: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=128, num_hidden_layers=3, **sizes))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    repository = folder(tmp_path)
    names = safetensors_checkpoint.files(repository)
    assert len(names) > 3 and names == tuple(sorted(path.name for path in tmp_path.glob("*.safetensors")))
    expected = model.state_dict()
    checkpoint = safetensors_checkpoint.open(repository, names)
    assert set(checkpoint.names()) == set(expected) and checkpoint.metadata == {"format": "pt"}
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.read(name), tensor) and checkpoint.shape(name) == tuple(tensor.shape)
        assert checkpoint.dtype(name) == "F32" and checkpoint.nbytes(name) == tensor.nbytes
        checkpoint.release()
    headers = safetensors_checkpoint.open_header(repository, names)
    assert headers.names() == checkpoint.names()
    assert all(headers.shape(name) == checkpoint.shape(name) for name in headers.names())
    checkpoint.close()
    with pytest.raises(CheckpointError, match="only the headers"):
        headers.read(headers.names()[0])


def test_headers_come_from_first_bytes_alone(sharded: Path, folder: Any) -> None:
    repository = folder(sharded)
    checkpoint = safetensors_checkpoint.open_header(repository, (A, B))
    assert checkpoint.shape("b") == (3, 2) and checkpoint.dtype("c") == "I8" and checkpoint.nbytes("c") == 4
    assert repository.read == ["model.safetensors.index.json"]


def test_a_header_longer_than_the_first_read(tmp_path: Path, folder: Any) -> None:
    tensors = {f"{'x' * 200}.{number}": torch.tensor([number]) for number in range(1000)}
    save_file(tensors, tmp_path / "model.safetensors")
    for opener in (safetensors_checkpoint.open, safetensors_checkpoint.open_header):
        with closing(opener(folder(tmp_path), ("model.safetensors",))) as checkpoint:
            assert set(checkpoint.names()) == set(tensors)


def test_unknown_tensors_are_answered_with_near_names(sharded: Path, folder: Any) -> None:
    save_file({"model.layers.0.self_attn.q_proj.weight": torch.ones(1)}, sharded / "x.safetensors")
    checkpoint = safetensors_checkpoint.open_header(folder(sharded), ("x.safetensors",))
    asked: list[Callable[[str], object]] = [checkpoint.shape, checkpoint.dtype, checkpoint.nbytes, checkpoint.read]
    for ask in asked:
        with pytest.raises(CheckpointError, match=r"near names: model\.layers\.0\.self_attn\.q_proj\.weight"):
            ask("model.layers.0.self_attn.q_proj.bias")


@pytest.mark.parametrize(
    ("present", "taken"),
    [
        (["model.safetensors", "model.fp16.safetensors", "other.safetensors"], ["model.safetensors"]),
        (["diffusion_pytorch_model.safetensors", "x.safetensors"], ["diffusion_pytorch_model.safetensors"]),
        (["model.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        (["consolidated.safetensors"], ["consolidated.safetensors"]),
        (["anything.safetensors", "pytorch_model.bin"], ["anything.safetensors"]),
        ([A, B, "consolidated-00001-of-00001.safetensors"], [A, B]),
        ([A, B, "adapter.safetensors"], [A, B]),
        (["x-00001-of-00001.safetensors"], ["x-00001-of-00001.safetensors"]),
        (["lora.safetensors", "sub/model.safetensors"], ["lora.safetensors"]),
        ([A], "1 are not there: number 2"),
        (["a.safetensors", "b.safetensors"], "Several sets"),
        (["x-00001-of-00001.safetensors", "y.safetensors"], "Several sets"),
        (["x-00001-of-00001.safetensors", "y-00001-of-00001.safetensors"], "Several sets"),
        ([A, B, "model-00001-of-00003.safetensors"], "Several sets"),
        (["sub/model.safetensors"], "folders of the model only: sub"),
        (["pytorch_model.bin", "config.json"], "would run code"),
        (["config.json"], "no .safetensors file"),
        ([], "no .safetensors file"),
    ],
)
def test_which_files_are_taken(present: list[str], taken: list[str] | str, tmp_path: Path, folder: Any) -> None:
    for name in present:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    if isinstance(taken, list):
        assert safetensors_checkpoint.files(folder(tmp_path)) == tuple(taken)
        return
    with pytest.raises(CheckpointError, match=taken) as raised:
        safetensors_checkpoint.files(folder(tmp_path))
    assert raised.value.fix


def test_which_files_an_index_names(sharded: Path, folder: Any) -> None:
    assert safetensors_checkpoint.files(folder(sharded)) == (A, B)
    (sharded / "model.safetensors").write_bytes(b"")
    assert safetensors_checkpoint.files(folder(sharded)) == ("model.safetensors",)  # the index was left behind
    write_index(sharded, {"a": "model.safetensors", "mtp": "extra.safetensors"})
    (sharded / "extra.safetensors").write_bytes(b"")
    assert safetensors_checkpoint.files(folder(sharded)) == ("extra.safetensors", "model.safetensors")
    for name in ("model.safetensors", "model.safetensors.index.json", A, B):
        (sharded / name).unlink()
    write_index(sharded, {"a": "extra.safetensors"}, name="flux-dev")
    assert safetensors_checkpoint.files(folder(sharded)) == ("extra.safetensors",)
    write_index(sharded, {"a": "extra.safetensors"}, name="other")
    with pytest.raises(CheckpointError, match="Several sets"):
        safetensors_checkpoint.files(folder(sharded))


def test_real_indexes(shared_data: Path, tmp_path: Path, folder: Any) -> None:
    paths = sorted((shared_data / "checkpoints").rglob("*.safetensors.index.json*"))
    assert len(paths) > 20
    for number, path in enumerate(paths):
        copy = tmp_path / str(number)
        copy.mkdir()
        raw = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        (copy / path.name.removesuffix(".xz")).write_bytes(raw)
        shards = sorted(set(json.loads(raw)["weight_map"].values()))
        for shard in shards:
            (copy / shard).touch()
        assert safetensors_checkpoint.files(folder(copy)) == tuple(shards)


def test_duplicates_across_shards_are_refused(sharded: Path, folder: Any) -> None:
    shards(sharded, model_00002_of_00002={"a": torch.zeros(2), "c": torch.ones(4)})
    for opener in (safetensors_checkpoint.open, safetensors_checkpoint.open_header):
        with pytest.raises(CheckpointError, match=f"'a' lies in two files, '{A}' and '{B}'"):
            opener(folder(sharded), (A, B))


def test_index_and_shards_must_agree(sharded: Path, folder: Any) -> None:
    write_index(sharded, {"a": A, "c": B, "d": B})
    with pytest.raises(WeightMismatch) as raised:
        safetensors_checkpoint.open(folder(sharded), (A, B))
    assert raised.value.missing == ("d",) and raised.value.unexpected == ("b",)
    assert "d" in str(raised.value) and "in the files, but not listed: b" in str(raised.value)
    with closing(safetensors_checkpoint.open(folder(sharded), (A,))) as part:  # not judged by the index of all
        assert set(part.names()) == {"a", "b"}


@pytest.mark.parametrize(
    "shard",
    [
        "../x.safetensors",
        "/etc/passwd",
        "a/../../x.safetensors",
        "..",
        "",
        ".",
        "a\\b.safetensors",
        "C:x.safetensors",
        "~/x.safetensors",
        "a\0.safetensors",
        "a\n.safetensors",
        "//x.safetensors",
        "x" * 300 + ".safetensors",
        "\ud800",
    ],
)
def test_an_index_that_leads_elsewhere(shard: str, sharded: Path, folder: Any) -> None:
    write_index(sharded, {"a": A, "b": shard})
    for call in (safetensors_checkpoint.files, lambda repository: safetensors_checkpoint.open(repository, (A, B))):
        repository = folder(sharded)
        with pytest.raises(UnsafeName):
            call(repository)
        assert set(repository.read) <= {"model.safetensors.index.json", A, B}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"weight_map": {}}',
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": null}}',
        f'{{"weight_map": {{"a": "{A}", "a": "{B}"}}}}',
        f'{{"weight_map": {{"a": "{A}"}}, "weight_map": {{"a": "{B}"}}}}',
        '{"weight_map": {"a": "absent.safetensors"}}',
        '{"weight_map": {"a": "config.json"}}',
        '{"weight_map": {"a": "pytorch_model.bin"}}',
        f'{{"weight_map": {{"a": "{A}"',
        "[" * 9_000,
        "[" * 5_000_000,
        '{"weight_map": {"a": "x.safetensors"}, "metadata": [' + "0," * 3_000_000 + "0]}",
        '{"weight_map": {"a": "x.safetensors"}, "metadata": ' + "9" * 5000 + "}",
        "\ud800",
    ],
    ids=lambda text: text[:40],
)
def test_a_malformed_index(text: str, sharded: Path, folder: Any) -> None:
    (sharded / "model.safetensors.index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError):
        safetensors_checkpoint.files(folder(sharded))


def test_an_oversized_index_is_not_read(sharded: Path, folder: Any) -> None:
    with (sharded / "model.safetensors.index.json").open("wb") as file:
        file.truncate(safetensors_index.MAX_INDEX + 1)
    repository = folder(sharded)
    with pytest.raises(CheckpointError, match="limit"):
        safetensors_checkpoint.files(repository)
    assert repository.read == []
