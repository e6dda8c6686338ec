"""Vocabulary files of llama.cpp, the repositories that some were made of, and files that the gguf package writes."""

import lzma
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import pytest

from bestiary.sources.folder import Folder
from bestiary_quant.gguf.header import parse
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.vocabulary import PREFIX


@pytest.fixture(scope="session")
def vocabulary_file(shared_data: Path) -> Callable[[str], Metadata]:
    """The metadata of a vocabulary file of llama.cpp."""
    folder = shared_data / "tokenizers/gguf-vocab"

    def read(name: str) -> Metadata:
        content = lzma.decompress((folder / f"{name}.gguf.xz").read_bytes())
        return parse(content, len(content), f"{name}.gguf").metadata

    return read


@pytest.fixture(scope="session")
def original(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Folder]:
    """The repository of a tokenizer as Hugging Face has it."""

    def unpack(name: str) -> Folder:
        folder = tmp_path_factory.mktemp(name)
        for file in (shared_data / "tokenizers/hf" / name).iterdir():
            if file.suffix == ".xz":
                (folder / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
            else:
                shutil.copy(file, folder)
        return Folder(folder, name)

    return unpack


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a vocabulary; the keys of `more` go behind "tokenizer.ggml.", but for those with a dot in front."""

    def write(
        model: str,
        tokens: Sequence[str | bytes] | None = None,
        types: Sequence[int] | None = None,
        scores: Sequence[float] | None = None,
        merges: Sequence[str] | None = None,
        more: Mapping[str, Any] | None = None,
        name: str = "model.gguf",
    ) -> Path:
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_tokenizer_model(model)
        arrays = {"tokens": tokens, "token_type": types, "scores": scores, "merges": merges}
        stated = {key: value for key, value in arrays.items() if value} | dict(more or {})
        for short, value in stated.items():
            key = short[1:] if short.startswith(".") else PREFIX + short
            match value:
                case bool():
                    writer.add_bool(key, value)
                case int() if value < 0:
                    writer.add_int32(key, value)
                case int():
                    writer.add_uint32(key, value)
                case float():
                    writer.add_float32(key, value)
                case str():
                    writer.add_string(key, value)
                case _:
                    writer.add_array(key, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name

    return write


@pytest.fixture
def written(write: Callable[..., Path]) -> Callable[..., Metadata]:
    """As `write`, and read back."""

    def read(*values: Any, **keywords: Any) -> Metadata:
        content = write(*values, **keywords).read_bytes()
        return parse(content, len(content), "model.gguf").metadata

    return read
