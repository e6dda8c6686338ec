"""Hostile safetensors files end in the project's own errors, fast and in little memory; never in other data."""

import importlib.util
import json
import math
import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy
import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bestiary.checkpoints import refuse, safetensors_checkpoint
from bestiary.checkpoints.safetensors_file import SafetensorsFile
from bestiary.checkpoints.safetensors_header import BITS
from bestiary.errors import CheckpointError


def _corpus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bestiary_test_corpus", Path(__file__).with_name("corpus.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CORPUS = _corpus()
CASES = [(case.name, case.opens) for case in CORPUS.cases()]
MEGA = 1 << 20


@pytest.fixture(scope="module")
def outcomes(child: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return child("hostile", tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[name for name, _ in CASES])
def test_case(number: int, outcomes: Any) -> None:
    opens, result = CASES[number][1], outcomes["cases"][number]
    if opens:
        assert result["outcome"] == "opened"
    else:
        assert result["outcome"].startswith("bestiary.errors.CheckpointError: ")
        assert "case.safetensors" in result["outcome"] and len(result["outcome"]) < 1500
    assert "\0" not in result["outcome"] and "\x1b" not in result["outcome"]
    assert result["seconds"] < 2
    assert result["peak"] < 32 * MEGA + 3 * result["size"]


def test_every_prefix_of_a_sound_file_is_refused(outcomes: Any) -> None:
    assert outcomes["prefixes"] == ["bestiary.errors.CheckpointError"] * len(CORPUS.VALID)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("data truncated", "truncated: tensor 'd' ends at byte 351, the file at 350"),
        ("one byte too many", "1 bytes of the file, from byte 351 on, belong to no tensor"),
        ("hole between", "tensor 'b' begins at byte 119 and leaves a hole behind tensor 'a'"),
        ("overlap", "tensor 'b' begins at byte 117 and overlaps tensor 'a'"),
        ("F4 ends within a byte", "needs 12 bits, and its offsets span 1 bytes"),
        ("shape [3] on 8 bytes", "needs 12 bytes, and its offsets span 8 bytes"),
        ("a million tensors", "lists 1000000 tensors; the limit is 500000"),
        ("json: duplicate, same offsets", "malformed at byte 62: tensor 'a' is listed twice"),
        ("header length 63", "truncated: bytes 0 to 7 announce a header of 63 bytes, and 62 follow"),
        ("pointer of Git LFS", "run `git lfs pull`"),
        ("web page", "with a token if the model is gated"),
    ],
)
def test_errors_say_what_where_and_what_to_do(name: str, says: str, outcomes: Any) -> None:
    outcome = outcomes["cases"][[case for case, _ in CASES].index(name)]["outcome"]
    assert says in outcome and "where:" in outcome and "fix:" in outcome


# Mutations, against the library


def library(path: Path) -> dict[str, bytes] | None:
    """What the safetensors library reads, as type, shape and bytes; None where it refuses."""
    try:
        with safetensors.safe_open(path, "pt") as opened:
            return {name: described(opened.get_tensor(name)) for name in list(opened.keys())}
    except Exception:  # the library has an error of its own, and torch adds others
        return None


def ours(path: Path) -> dict[str, bytes] | None:
    try:
        with SafetensorsFile(path) as opened:
            return {name: described(opened.read(name)) for name in opened.header.entries}
    except CheckpointError:
        return None


def described(tensor: torch.Tensor) -> bytes:
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return f"{tensor.dtype} {list(tensor.shape)} ".encode() + raw


def agree(path: Path, content: bytes) -> bool:
    """Whether ours opened the file; it may refuse more than the library, and must never read anything else."""
    path.write_bytes(content)
    read = ours(path)
    if read is not None:
        assert read == library(path)
    return read is not None


edits = st.lists(
    st.tuples(
        st.sampled_from(("set", "insert", "delete", "copy")),
        st.integers(0, len(CORPUS.VALID) - 1),
        st.one_of(st.integers(0, 255), st.sampled_from(list(b'{}[]",:\\0123456789- \t\neE.untrfalsN'))),
        st.integers(1, 12),
    ),
    min_size=1,
    max_size=4,
)
mutations = settings(
    max_examples=500, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@mutations
@given(edits, st.booleans())
def test_mutated_bytes(tmp_path: Path, changes: list[tuple[str, int, int, int]], mend_length: bool) -> None:
    content = bytearray(CORPUS.VALID)
    data = content[8 + int.from_bytes(content[:8], "little") :]
    for kind, at, value, length in changes:
        if kind == "set":
            content[min(at, len(content) - 1)] = value
        elif kind == "insert":
            content[at:at] = bytes([value]) * length
        elif kind == "delete" and len(content) - length > 8:
            del content[at : at + length]
        elif kind == "copy":
            content[at:at] = content[value : value + length]
    if mend_length:  # else nearly every insertion ends at the length already
        content[:8] = max(len(content) - 8 - len(data), 0).to_bytes(8, "little")
    agree(tmp_path / "mutated.safetensors", bytes(content))


HEADER = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a": CORPUS.entry(),
        "b": CORPUS.entry("BF16", [2, 3], [8, 20]),
        "c": CORPUS.entry("I8", [], [20, 21]),
        "d": CORPUS.entry("F64", [0, 4], [21, 21]),
    }
)
TOKENS = [match.span() for match in re.finditer(r'"[^"]*"|\d+|[\[\]{}:,]', HEADER)]
WORDS = (
    '"a"',
    '"b"',
    '"dtype"',
    '"shape"',
    '"F32"',
    '"U8"',
    '"F4"',
    '"F6_E3M2"',
    '"BOOL"',
    '"I64"',
    '"C64"',
    '"__metadata__"',
)
JUNK = (
    "0",
    "1",
    "2",
    "3",
    "6",
    "8",
    "20",
    "21",
    "-1",
    "-0",
    "1.0",
    "1e1",
    "00",
    str(2**63),
    str(2**64),
    "null",
    "true",
)
tokens = st.sampled_from(
    (*WORDS, *JUNK, '"\\u0061"', '"\\ud800"', '"é"', "[", "]", "{", "}", ":", ",", "[]", "{}", "", " ")
)


@mutations
@given(st.lists(st.tuples(st.integers(0, len(TOKENS) - 1), tokens), min_size=1, max_size=3), st.integers(-2, 2))
def test_mutated_tokens(tmp_path: Path, changes: list[tuple[int, str]], extra: int) -> None:
    header = HEADER
    for number, word in sorted(changes, reverse=True):
        start, end = TOKENS[number]
        header = header[:start] + word + header[end:]
    agree(tmp_path / "mutated.safetensors", CORPUS.file(header, bytes(range(1, 22 + min(extra, 0) * (extra % 2)))))


tensors = st.tuples(
    st.text('ab._-"é字 {[,:', max_size=6).map("a{}".format),
    st.sampled_from(sorted(set(BITS) - {"F4", "F6_E2M3", "F6_E3M2"})),
    st.lists(st.integers(0, 4), max_size=3),
)


@mutations
@given(st.lists(tensors, max_size=6, unique_by=lambda tensor: tensor[0]), st.randoms(), st.data())
def test_every_sound_file_opens(
    tmp_path: Path, listed: list[tuple[str, str, list[int]]], choice: Random, draw: st.DataObject
) -> None:
    header, data = {}, b""
    for name, dtype, shape in listed:
        size = math.prod(shape) * BITS[dtype] // 8
        fields = list(CORPUS.entry(dtype, shape, [len(data), len(data) + size]).items())
        choice.shuffle(fields)
        header[name] = dict(fields)
        data += bytes(choice.randrange(2 if dtype == "BOOL" else 256) for _ in range(size))
    order = list(header)
    choice.shuffle(order)
    written = {"__metadata__": {"k": "{}"}} if draw.draw(st.booleans()) else {}
    text = json.dumps(
        written | {name: header[name] for name in order},
        indent=draw.draw(st.sampled_from((None, 0, 2))),
        ensure_ascii=draw.draw(st.booleans()),
    )
    assert agree(tmp_path / "sound.safetensors", CORPUS.file(text + " " * choice.randrange(9), data))


def test_the_seeds_of_the_mutations_are_sound(tmp_path: Path) -> None:
    assert agree(tmp_path / "a.safetensors", CORPUS.VALID)
    assert agree(tmp_path / "b.safetensors", CORPUS.file(HEADER, bytes(range(1, 22))))


# A file that changes while it is open


@pytest.fixture
def changing(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(CORPUS.file({"a": CORPUS.entry("I32", [4096], [0, 16384])}, b"\7\0\0\0" * 4096))
    return path


def test_truncated_before_the_read(changing: Path) -> None:
    with SafetensorsFile(changing) as opened:
        os.truncate(changing, 9000)
        with pytest.raises(CheckpointError, match=r"changed from 164\d\d to 9000 bytes"):
            opened.read("a")


def test_truncated_after_the_read(changing: Path) -> None:
    with SafetensorsFile(changing) as opened:
        assert int(opened.read("a").sum()) == 7 * 4096
        os.truncate(changing, 9000)
        with pytest.raises(CheckpointError, match="changed"):
            opened.release()


def test_rewritten_in_place(changing: Path) -> None:
    with SafetensorsFile(changing) as opened:
        opened.read("a")
        with changing.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\1\1\1\1")
        os.utime(changing, ns=(0, changing.stat().st_mtime_ns + 1))  # a write within the same tick of the clock
        with pytest.raises(CheckpointError, match="in place"):
            opened.release()
        with pytest.raises(CheckpointError, match="in place"):
            opened.read("a")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and knows the signal of Linux")
def test_truncated_under_a_running_reader(tmp_path: Path, child: Callable[..., Any]) -> None:
    ends = child("truncation", tmp_path, 60)
    # Seen when this was written: 54 CheckpointError, 6 SIGBUS.
    assert set(ends) <= {"CheckpointError", "SIGBUS"}, ends
    assert sum(ends.values()) == 60


# Pickle


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sentinel),)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("writer", ["zip", "legacy", "plain", "npz", "npy"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "weights"])
def test_pickles_are_refused_and_never_loaded(
    writer: str, protocol: int, name: str, tmp_path: Path, folder: Any
) -> None:
    sentinel, path = tmp_path / "sentinel", tmp_path / "repository" / name
    path.parent.mkdir()
    trap = Trap(sentinel)
    with path.open("wb") as file:
        if writer == "plain":
            pickle.dump(trap, file, protocol)
        elif writer == "npz":
            numpy.savez(file, a=numpy.array([trap], dtype=object))
        elif writer == "npy":
            numpy.save(file, numpy.array([trap], dtype=object))
        else:
            new = writer == "zip"
            torch.save({"a": trap}, file, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    repository = folder(path.parent)
    assert refuse.is_pickle(name, repository.head(name, 16))
    with pytest.raises(CheckpointError, match="run code") as raised:
        safetensors_checkpoint.open(repository, safetensors_checkpoint.files(repository) if "." in name else (name,))
    assert "from safetensors.torch import save_file" in str(raised.value)
    with pytest.raises(CheckpointError):
        safetensors_checkpoint.open_header(repository, (name,))
    assert not sentinel.exists()


@pytest.mark.parametrize("name", ["a.bin", "a.PT", "a.pth", "a.ckpt", "a.pkl", "a.npz", "a.npy"])
def test_pickles_are_known_by_name(name: str) -> None:
    assert refuse.is_pickle(name)
    with pytest.raises(CheckpointError, match=re.escape(repr(name))):
        refuse.refuse(["config.json", name], "here")


def test_other_files_are_no_pickles() -> None:
    refuse.refuse(["model.safetensors", "model.gguf", "config.json"], "here")
    assert not refuse.is_pickle("model.gguf", b"GGUF\3\0\0\0") and not refuse.is_pickle("a.safetensors", CORPUS.VALID)
    # 640 as a length begins as pickle protocol 2 does
    assert not refuse.is_pickle("a.safetensors", (640).to_bytes(8, "little") + b'{"a":')
