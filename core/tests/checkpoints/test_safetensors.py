"""Sound files read as the safetensors library reads them."""

import json
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from types import ModuleType

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from bestiary.checkpoints.safetensors_file import SafetensorsFile
from bestiary.checkpoints.safetensors_header import BITS, parse, sniff
from bestiary.errors import CheckpointError

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
    return torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))


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
    # 0.11 s when this was written, three times what the json module takes to parse without any check.
    assert ours < 8 * min(seconds(lambda: json.loads(raw)) for _ in range(4))


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


def test_files_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    for name in ("pipe", "folder", "loop", "absent", "nul\0"):
        with pytest.raises(CheckpointError):
            SafetensorsFile(tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="regular"):
        SafetensorsFile("/dev/zero")
