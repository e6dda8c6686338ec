"""Files that this package writes, as llama.cpp answers them (make_references.py).

The weights are the same, so what differs is that llama.cpp rounds activations to 8 bits before each product.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest

from bestiary.generation.tokenizer import Tokenizer
from bestiary.sources.folder import Folder

KINDS = ("llama", "qwen3")
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "qwen2moe", "qwen3moe", "gemma", "gemma2", "gemma3")
SCHEMES = ("f16", "q8_0", "q6k", "q4_k_m", "q4_0", "iq4_xs")


@pytest.fixture(scope="module")
def llama_cpp() -> Mapping[str, Any]:
    with numpy.load(Path(__file__).with_name("data") / "llama_cpp.npz") as file:
        return {name: file[name] for name in file}


@pytest.fixture(scope="module")
def sources(models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {kind: models.write_model(kind, folder / kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_logits(
    kind: str,
    scheme: str,
    models: ModuleType,
    references: ModuleType,
    llama_cpp: Mapping[str, Any],
    sources: Mapping[str, Path],
    tmp_path: Path,
) -> None:
    path = models.write_file(sources[kind], tmp_path / "x.gguf", None if scheme == "f16" else scheme)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == str(llama_cpp[f"{kind}/{scheme}/sha256"])
    made = models.logits(path, llama_cpp[f"{kind}/tokens"].tolist()).numpy()
    agreeing = (made.argmax(-1) == llama_cpp[f"{kind}/{scheme}/top"]).mean()
    assert agreeing >= 0.99, agreeing
    theirs = llama_cpp[f"{kind}/{scheme}/logits"].astype(numpy.float32)
    away = numpy.abs(made[:, references.SHOWN] - theirs)
    assert away.max() < (0.01 if scheme == "f16" else 0.2) * made.std(), away.max() / made.std()
    assert away.mean() < (0.002 if scheme == "f16" else 0.03) * made.std(), away.mean() / made.std()
    # In a network in which nothing came before, the answers would be others: every token of the context counts.
    alone = models.logits(path, llama_cpp[f"{kind}/tokens"].tolist()[-1:]).numpy()
    assert numpy.corrcoef(alone[0], made[-1])[0, 1] < 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_tokens(kind: str, references: ModuleType, llama_cpp: Mapping[str, Any], sources: Mapping[str, Path]) -> None:
    """The tokenizer of the file cuts texts in llama.cpp as that of the repository does here."""
    original = Tokenizer.from_repository(Folder(sources[kind], kind))
    for number, text in enumerate(references.TEXTS):
        assert original.encode(text) == llama_cpp[f"{kind}/text{number}"].tolist()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture(
    name: str, models: ModuleType, references: ModuleType, llama_cpp: Mapping[str, Any], tmp_path: Path
) -> None:
    """In float32 the logits are the same; Gemma's GELU llama.cpp looks up in a table of 16-bit floats."""
    source = models.write_architecture(name, tmp_path / f"any-{name}")  # the file says the name of the folder
    path = models.write_file(source, tmp_path / "x.gguf", None, plain="f32")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == str(llama_cpp[f"any/{name}/sha256"])
    due = llama_cpp[f"any/{name}/logits"]
    away = numpy.abs(models.logits(path, list(references.FEW)).numpy()[-4:] - due).max() / due.std()
    assert away < (5e-3 if name.startswith("gemma") else 5e-5), away
