"""Files of the gguf package's writer, and real vocabularies, are read as that package says they are."""

import lzma
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy
import pytest

from bestiary.errors import CheckpointError
from bestiary_quant.gguf.cursor import Incomplete
from bestiary_quant.gguf.header import Header, parse, sniff
from bestiary_quant.mapped import MappedFile

VALUES: dict[str, Any] = {
    "uint8": 255,
    "int8": -128,
    "uint16": 65535,
    "int16": -32768,
    "uint32": 2**32 - 1,
    "int32": -(2**31),
    "uint64": 2**64 - 1,
    "int64": -(2**63),
    "float32": 0.5,
    "float64": 0.1,
    "bool": True,
    "string": "Lion \N{LION FACE}, tiger\n",
}
ARRAYS: dict[str, list[Any]] = {
    "strings": ["", "a", "\N{LION FACE}" * 100, "end"],
    "whole": [1, -2, 3],
    "floats": [0.5, -1.5],
    "truths": [True, False, True],
}


def header(path: Path) -> Header:
    mapped = MappedFile(path)
    try:
        return parse(mapped.buffer, mapped.size, str(path))
    finally:
        mapped.close()


def writer(path: Path, **options: Any) -> gguf.GGUFWriter:
    made = gguf.GGUFWriter(path, "llama", **options)
    for kind, value in VALUES.items():
        getattr(made, f"add_{kind}")(f"test.{kind}", value)
    for name, items in ARRAYS.items():
        made.add_array(f"test.{name}", items)
    made.add_tensor("one.weight", numpy.arange(12, dtype=numpy.float32).reshape(3, 4))
    made.add_tensor("two.weight", numpy.arange(7, dtype=numpy.int8))
    data = gguf.quants.quantize(numpy.ones((2, 5, 64), numpy.float32), gguf.GGMLQuantizationType.Q4_0)
    made.add_tensor("three.weight", data, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    return made


def test_every_type_of_value(tmp_path: Path, converting: ModuleType) -> None:
    metadata = header(converting.write(writer(tmp_path / "a.gguf"), tmp_path / "a.gguf")).metadata
    assert len(metadata) == 1 + len(VALUES) + len(ARRAYS)
    assert {key.removeprefix("test."): metadata[key] for key in list(metadata)[1:13]} == VALUES
    assert all(type(metadata[f"test.{key}"]) is type(value) for key, value in VALUES.items())
    assert metadata["test.strings"] == ARRAYS["strings"]
    for name in ("whole", "floats", "truths"):
        values = metadata[f"test.{name}"]
        assert isinstance(values, numpy.ndarray) and values.tolist() == ARRAYS[name]
    assert metadata.count("test.strings") == 4 and metadata.count("test.string") is None
    assert metadata.count("absent") is None and "absent" not in metadata
    assert {metadata.text("absent"), metadata.whole("absent"), metadata.number("absent")} == {None}
    assert metadata.text("test.string") == VALUES["string"] and metadata.whole("test.int64") == -(2**63)
    assert metadata.number("test.float64") == 0.1 and metadata.number("test.uint8") == 255


@pytest.mark.parametrize(
    ("read", "key"),
    [("text", "uint8"), ("whole", "bool"), ("whole", "float32"), ("whole", "string"), ("number", "bool")]
    + [(read, key) for read in ("text", "whole", "number") for key in ("strings", "whole")],
)
def test_a_value_of_another_type_is_an_error(read: str, key: str, tmp_path: Path, converting: ModuleType) -> None:
    metadata = header(converting.write(writer(tmp_path / "a.gguf"), tmp_path / "a.gguf")).metadata
    with pytest.raises(CheckpointError, match=f"'test.{key}'") as caught:
        getattr(metadata, read)(f"test.{key}")
    assert caught.value.where == str(tmp_path / "a.gguf")


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_tensors_lie_where_the_package_says(alignment: int, tmp_path: Path, converting: ModuleType) -> None:
    made = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    made.add_custom_alignment(alignment)
    made.add_tensor("one.weight", numpy.arange(12, dtype=numpy.float32).reshape(3, 4))
    made.add_tensor("two.weight", numpy.arange(7, dtype=numpy.int8))
    made.add_tensor("three.bias", numpy.ones((1, 2, 3, 4), numpy.float16))
    found = header(converting.write(made, tmp_path / "a.gguf")).tensors
    expected = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    assert list(found) == list(expected)
    for name, entry in found.items():
        assert entry.kind.code == expected[name].tensor_type
        assert entry.shape == tuple(reversed(expected[name].shape.tolist()))
        assert (entry.start, entry.end - entry.start) == (expected[name].data_offset, expected[name].n_bytes)


def test_packed_shapes_are_in_numbers(tmp_path: Path, converting: ModuleType) -> None:
    entry = header(converting.write(writer(tmp_path / "a.gguf"), tmp_path / "a.gguf")).tensors["three.weight"]
    assert (entry.kind.name, entry.shape, entry.end - entry.start) == ("Q4_0", (2, 5, 64), 2 * 5 * 2 * 18)


def test_version_2_is_read_and_others_are_named(tmp_path: Path, converting: ModuleType) -> None:
    path: Path = converting.write(writer(tmp_path / "a.gguf"), tmp_path / "a.gguf")
    content = path.read_bytes()

    def version(number: int) -> bytes:
        return content[:4] + number.to_bytes(4, "little") + content[8:]

    second = parse(version(2), len(content), "two")
    assert second.version == 2 and list(second.tensors) == list(header(path).tensors)
    for number, fix in ((0, "convert the model again"), (1, "convert the model again"), (4, "newer bestiary-quant")):
        with pytest.raises(CheckpointError, match=f"version {number} ") as caught:
            parse(version(number), len(content), "x")
        assert fix in str(caught.value.fix)


def test_big_endian_files_are_refused_with_the_way_out(tmp_path: Path, converting: ModuleType) -> None:
    path = converting.write(writer(tmp_path / "a.gguf", endianess=gguf.GGUFEndian.BIG), tmp_path / "a.gguf")
    with pytest.raises(CheckpointError, match="big-endian") as caught:
        header(path)
    assert "gguf-convert-endian" in str(caught.value.fix)


def test_a_beginning_is_enough_or_asks_for_more(tmp_path: Path, converting: ModuleType) -> None:
    path = converting.write(writer(tmp_path / "a.gguf"), tmp_path / "a.gguf")
    content, whole = path.read_bytes(), header(path)
    end = min(entry.start for entry in whole.tensors.values())
    assert parse(content[:end], len(content), "x").tensors == whole.tensors
    for length in range(end - 32):
        with pytest.raises(Incomplete):
            parse(content[:length], len(content), "x")


def test_sniff() -> None:
    assert sniff("model.gguf", b"GGUF\3\0\0\0") and sniff("blob", b"GGUF\3\0\0\0") and sniff("model.gguf", b"")
    assert not sniff("model.safetensors", b"\x40\0\0\0\0\0\0\0{") and not sniff("model.gguf", b"PK\3\4")


@pytest.fixture(scope="module")
def vocabularies(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Real vocabularies, of llama.cpp's tests."""
    folder = tmp_path_factory.mktemp("vocabularies")
    paths = []
    for source in sorted((shared_data / "tokenizers" / "gguf-vocab").glob("*.gguf.xz")):
        paths.append(folder / source.stem)
        paths[-1].write_bytes(lzma.decompress(source.read_bytes()))
    assert len(paths) >= 10
    return paths


def test_real_vocabularies_open_without_a_string_being_made(vocabularies: list[Path]) -> None:
    for path in vocabularies:
        tracemalloc.start()
        metadata = header(path).metadata
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        count = metadata.count("tokenizer.ggml.tokens")
        assert count is not None and count >= 30_000 and peak < 100_000, path.name


def test_the_arrays_of_a_real_vocabulary_are_those_of_the_package(vocabularies: list[Path]) -> None:
    path = next(path for path in vocabularies if path.name == "llama-spm.gguf")
    ours, theirs = header(path).metadata, gguf.GGUFReader(path).fields
    assert {key for key in theirs if not key.startswith("GGUF.")} == set(ours)
    for key, value in ours.items():
        expected = theirs[key].contents()
        assert (value.tolist() if isinstance(value, numpy.ndarray) else value) == expected, key


def test_headers_are_read_without_torch(tmp_path: Path, converting: ModuleType) -> None:
    path = converting.write(writer(tmp_path / "a.gguf"), tmp_path / "a.gguf")
    code = (
        "import sys, bestiary_quant\n"
        "assert 'numpy' not in sys.modules\n"
        "from bestiary_quant.gguf.header import parse\n"
        "from bestiary_quant.mapped import MappedFile\n"
        f"mapped = MappedFile({str(path)!r})\n"
        "assert len(parse(mapped.buffer, mapped.size, '').tensors) == 3\n"
        "mapped.close()\n"
        "assert 'torch' not in sys.modules and 'gguf' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
