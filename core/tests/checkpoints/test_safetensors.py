"""Sound files read as the safetensors library reads them, whole or in shards."""

import json
import lzma
import os
import struct
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import run
from types import ModuleType
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from bestiary.checkpoints import safetensors_checkpoint, safetensors_index
from bestiary.checkpoints.safetensors_file import SafetensorsFile
from bestiary.checkpoints.safetensors_header import BITS, parse, sniff
from bestiary.errors import CheckpointError, UnsafeName, WeightMismatch

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F4": torch.float4_e2m1fn_x2,
}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal in type, shape and every bit, NaN included."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bytes(a.contiguous().reshape(-1).view(torch.uint8)) == bytes(b.contiguous().reshape(-1).view(torch.uint8))


def tensor_of(kind: torch.dtype, *shape: int) -> torch.Tensor:
    """Random bits of a type; a shape without numbers to give a scalar."""
    count = torch.Size(shape).numel()
    raw = torch.randint(0, 2 if kind == torch.bool else 256, (count * kind.itemsize,), dtype=torch.uint8)
    return raw.view(kind).reshape(shape)


@pytest.mark.parametrize("name", BITS)
def test_every_type_reads_as_the_library_reads_it(name: str, tmp_path: Path, corpus: ModuleType) -> None:
    path = tmp_path / "model.safetensors"
    if name.startswith("F6_"):
        path.write_bytes(corpus.file({"a": corpus.entry(name, [4], [0, 3])}, b"abc"))
        with SafetensorsFile(path) as opened, pytest.raises(CheckpointError, match="torch"):
            opened.read("a")
        return
    kind = TYPES[name]
    tensors = {"matrix": tensor_of(kind, 3, 4), "none": tensor_of(kind, 2, 0)}
    if name != "F4":  # of which a scalar would have half a byte
        tensors["scalar"] = tensor_of(kind)
    save_file(tensors, path)
    # load_file would do, did it know every type that safe_open knows
    with safetensors.safe_open(path, "pt") as library, SafetensorsFile(path) as ours:
        assert set(library.keys()) == set(ours.header.entries) == set(tensors)
        for key, entry in ours.header.entries.items():
            assert same(ours.read(key), library.get_tensor(key)) and same(ours.read(key), tensors[key])
            assert entry.dtype == name and list(entry.shape) == library.get_slice(key).get_shape()


def test_the_types_are_those_of_the_library(corpus: ModuleType) -> None:
    load: Callable[[bytes], object] = safetensors.deserialize
    for name, bits in BITS.items():
        load(corpus.file({"a": corpus.entry(name, [8, 0], [0, 0])}))  # a known type
        with pytest.raises(safetensors.SafetensorError):
            load(corpus.file({"a": corpus.entry(name, [8], [0, bits + 1])}, bytes(bits + 1)))
    with pytest.raises(safetensors.SafetensorError, match="unknown variant") as raised:
        load(corpus.file({"a": corpus.entry("?", [8], [0, 8])}, bytes(8)))
    listed = str(raised.value).partition("expected one of ")[2].partition(" at line")[0]
    assert {part.strip("` ") for part in listed.split(",")} == set(BITS)


def test_real_small_files(shared_data: Path) -> None:
    paths = sorted((shared_data / "weights" / "safetensors-small").glob("*.safetensors"))
    assert paths
    for path in [*paths, shared_data / "weights" / "stories260K" / "hf" / "model.safetensors"]:
        with SafetensorsFile(path) as opened:
            expected = load_file(path)
            assert set(expected) == set(opened.header.entries)
            assert all(same(opened.read(name), tensor) for name, tensor in expected.items())


def test_unaligned_data_and_odd_files_read_the_right_values(tmp_path: Path, corpus: ModuleType) -> None:
    path = tmp_path / "case.safetensors"
    sound = [case for case in corpus.cases() if case.opens]
    assert len(sound) > 15
    for case in sound:
        path.write_bytes(case.content)
        with SafetensorsFile(path) as opened:
            expected = load_file(path)
            assert set(expected) == set(opened.header.entries), case.name
            assert all(same(opened.read(name), tensor) for name, tensor in expected.items()), case.name


def test_reading_warns_of_nothing_and_survives_close(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(6.0)}, path)
    command = (
        "import sys, torch\nfrom bestiary.checkpoints.safetensors_file import SafetensorsFile\n"
        "torch.set_warn_always(True)\n"
        f"opened = SafetensorsFile({str(path)!r})\na = opened.read('a')\nopened.release()\nopened.close()\n"
        "assert a.tolist() == [0, 1, 2, 3, 4, 5]"
    )
    done = run([sys.executable, "-W", "error", "-c", command], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0 and done.stderr == b"", done.stderr.decode()


def test_a_closed_file_says_so(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    opened = SafetensorsFile(tmp_path / "model.safetensors")
    opened.close()
    opened.close()
    with pytest.raises(CheckpointError, match="closed"):
        opened.read("a")


def test_a_header_of_35000_tensors_is_parsed_in_a_moment() -> None:
    header, at = {}, 0
    for number in range(35_000):
        name = f"model.layers.{number // 600}.mlp.experts.{number % 200}.{number}.gate_proj.weight"
        header[name] = {"dtype": "BF16", "shape": [512, 2048], "data_offsets": [at, at + (1 << 21)]}
        at += 1 << 21
    raw = json.dumps(header).encode()
    head = struct.pack("<Q", len(raw)) + raw

    def seconds(task: Callable[[], object]) -> float:
        begin = time.process_time()
        task()
        return time.process_time() - begin

    assert len(parse(head, len(head) + at, "test").entries) == 35_000
    ours = min(seconds(lambda: parse(head, len(head) + at, "test")) for _ in range(4))
    # 0.15 s when this was written, 2.6 times what the json module takes to parse without any check.
    assert ours < 6 * min(seconds(lambda: json.loads(raw)) for _ in range(4))


def test_sniff() -> None:
    sound = struct.pack("<Q", 64) + b'{"__metadata__"'
    assert sniff("x", sound) and sniff("model.safetensors", sound)
    assert sniff("model.safetensors", b"version https://git-lfs")
    assert not sniff("model.gguf", b"GGUF\3\0\0\0" + bytes(8)) and not sniff("model.safetensors", b"GGUF\3\0\0\0")
    assert not sniff("config.json", b'{"architectures"') and not sniff("a.bin", b"\x80\x02}q\x00" + bytes(9))
    assert not sniff("x", b"")


def test_headers_are_read_without_torch(tmp_path: Path) -> None:
    command = (
        "import sys, bestiary.checkpoints.safetensors_checkpoint as c, bestiary.checkpoints.refuse\n"
        "assert callable(c.files) and not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    run([sys.executable, "-c", command], check=True, timeout=60)


# Several files as one


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
        assert same(checkpoint.read(name), tensor) and checkpoint.shape(name) == tuple(tensor.shape)
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
        (["a.safetensors", "b.safetensors"], "several sets"),
        (["x-00001-of-00001.safetensors", "y.safetensors"], "several sets"),
        (["x-00001-of-00001.safetensors", "y-00001-of-00001.safetensors"], "several sets"),
        ([A, B, "model-00001-of-00003.safetensors"], "several sets"),
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
    repository = folder(sharded)
    assert safetensors_checkpoint.files(repository) == (A, B)
    (sharded / "model.safetensors").write_bytes(b"")
    assert safetensors_checkpoint.files(repository) == ("model.safetensors",)  # the index was left behind
    write_index(sharded, {"a": "model.safetensors", "mtp": "extra.safetensors"})
    (sharded / "extra.safetensors").write_bytes(b"")
    assert safetensors_checkpoint.files(repository) == ("extra.safetensors", "model.safetensors")
    for name in ("model.safetensors", "model.safetensors.index.json", A, B):
        (sharded / name).unlink()
    write_index(sharded, {"a": "extra.safetensors"}, name="flux-dev")
    assert safetensors_checkpoint.files(repository) == ("extra.safetensors",)
    write_index(sharded, {"a": "extra.safetensors"}, name="other")
    with pytest.raises(CheckpointError, match="several sets"):
        safetensors_checkpoint.files(repository)


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


def test_files_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    for name in ("pipe", "folder", "loop", "absent", "nul\0"):
        with pytest.raises(CheckpointError):
            SafetensorsFile(tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="regular"):
        SafetensorsFile("/dev/zero")
