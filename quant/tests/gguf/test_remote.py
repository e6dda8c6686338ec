"""Of a repository on the hub only the beginnings of files move until weights are wanted."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import gguf
import numpy
import pytest
from gguf import GGMLQuantizationType as Type

from bestiary.errors import CheckpointError
from bestiary.protocols import Repository
from bestiary.records import SourceOptions
from bestiary.sources.chosen import Chosen
from bestiary.sources.hub import open_hub
from bestiary.testing.hub import LocalHub
from bestiary.testing.reference import make_reference
from bestiary.testing.tiny import decoder
from bestiary_quant.gguf import checkpoint, parts
from bestiary_quant.gguf.companions import weight_files
from bestiary_quant.gguf.identity import identify
from bestiary_quant.gguf.selection import files

ID = "zoo/tiny-lion-GGUF"
Hub = Callable[[dict[str, bytes]], Repository]


@pytest.fixture
def local() -> Iterator[LocalHub]:
    with LocalHub() as local:
        yield local


@pytest.fixture
def hub(local: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Publishes files, and opens the repository with a cache of its own."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hurried = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", hurried)
    monkeypatch.setattr("huggingface_hub.file_download.time", hurried)

    def publish(content: dict[str, bytes]) -> Repository:
        local.add(ID, content)
        options = SourceOptions(cache_dir=str(tmp_path / "cache"), token=False)
        repository: Repository = open_hub(ID, options, endpoint=local.endpoint)
        return repository

    return publish


def moved(local: LocalHub) -> list[str]:
    """The files of which anything was asked, once for each request that brings content."""
    return [request.path.rpartition("/")[2] for request in local.requests if "/resolve/" in request.path]


def whole(repository: Repository, names: tuple[str, ...]) -> bool:
    return not repository.missing(names)


def content(converting: ModuleType, path: Path, kind: Type = Type.F32, **options: int) -> dict[str, bytes]:
    reference = make_reference(decoder("LlamaForCausalLM", "llama"), path / "hf")
    (path / "gguf").mkdir()
    converting.convert(reference, path / "gguf" / "lion-F32.gguf", kind, **options)
    return {file.name: file.read_bytes() for file in sorted((path / "gguf").iterdir())}


def test_a_model_is_known_before_it_moves(
    hub: Hub, local: LocalHub, tmp_path: Path, converting: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "READS", (64, 16_384))
    published = content(converting, tmp_path)
    published["mmproj-F16.gguf"] = b"GGUF"
    repository = hub(published)
    names = files(repository)
    assert names == ("lion-F32.gguf",)
    evidence = identify(repository, names[0], mmproj=False)
    assert evidence.gguf == "llama" and evidence.config["hidden_size"] == 64
    headers = checkpoint.open_header(repository, names)
    assert headers.shape("model.layers.0.mlp.up_proj.weight") == (96, 64)
    with pytest.raises(CheckpointError, match="only the headers"):
        headers.read("model.norm.weight")
    headers.release()
    headers.close()
    assert set(moved(local)) == {"lion-F32.gguf"} and not whole(repository, names)
    opened = checkpoint.open(repository, names)
    assert whole(repository, names) and opened.names() == headers.names()
    assert opened.read("model.norm.weight").shape == (64,)
    opened.close()


def test_eyes_are_known_before_they_move(
    hub: Hub,
    local: LocalHub,
    tmp_path: Path,
    converting: ModuleType,
    companions: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "READS", (64, 16_384))
    tiny = pytest.importorskip("bestiary_idefics.tiny")
    reference = make_reference(tiny.IDEFICS3[0], tmp_path / "seeing")
    text = companions.text_part(reference, tmp_path / "text")
    published = {
        "lion-F32.gguf": converting.convert(text, tmp_path / "a.gguf").read_bytes(),
        "mmproj-F16.gguf": companions.write_companion(reference, tmp_path / "b.gguf").read_bytes(),
        "mmproj-F32.gguf": b"GGUF",
    }
    repository = hub({**published, "lion-Q8_0.gguf": published["lion-F32.gguf"]})
    evidence = identify(Chosen(repository, ["lion-Q8_0.gguf"], (".gguf",)), "lion-Q8_0.gguf")
    names = evidence.weights["Idefics3ForConditionalGeneration"]
    assert names == ("lion-Q8_0.gguf", "mmproj-F16.gguf")
    narrowed = Chosen(repository, names, (".gguf",))
    assert weight_files(narrowed) == names
    headers = checkpoint.open_header(narrowed, names)
    assert headers.shape("mm.model.fc.weight") == (64, 128)
    assert set(moved(local)) == set(names) and not any(whole(repository, (name,)) for name in names)
    opened = checkpoint.open(narrowed, names)
    assert whole(repository, names) and opened.read("v.post_ln.weight").shape == (32,)
    opened.close()


def test_split_files_are_known_by_all_their_beginnings(
    hub: Hub, tmp_path: Path, converting: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "READS", (2048, 8192))
    repository = hub(content(converting, tmp_path, split_max_tensors=12))
    names = files(repository)
    assert len(names) == 3
    assert identify(repository, names[1]).config["tie_word_embeddings"] is False  # output.weight is in the last part
    assert not any(whole(repository, (name,)) for name in names)


@pytest.mark.parametrize("first", [True, False])
def test_rotary_factors_are_read_from_the_beginning_if_they_lie_there(
    first: bool, hub: Hub, tmp_path: Path, converting: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "READS", (2048,))
    monkeypatch.setattr(parts, "SMALL", 2048)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    factors, large = numpy.arange(1, 9, dtype=numpy.float32), numpy.ones((64, 64), numpy.float32)
    tensors = {"rope_freqs.weight": factors, "token_embd.weight": large}
    for name in sorted(tensors, reverse=not first):
        writer.add_tensor(name, tensors[name])
    repository = hub({"a.gguf": converting.write(writer, tmp_path / "a.gguf").read_bytes()})
    assert identify(repository, "a.gguf").config["rope_scaling"]["long_factor"] == factors.tolist()
    assert whole(repository, ("a.gguf",)) is not first


def test_a_header_without_end_is_given_up(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "READS", (64, 128))
    text = (1 << 20).to_bytes(8, "little") + bytes(1 << 20)
    start = b"GGUF\3\0\0\0" + bytes(8) + (1).to_bytes(8, "little")
    repository = hub({"a.gguf": start + (1).to_bytes(8, "little") + b"k" + (8).to_bytes(4, "little") + text})
    with pytest.raises(CheckpointError, match="longer than 128 bytes"):
        identify(repository, "a.gguf")
    assert not whole(repository, ("a.gguf",))


def test_no_such_file(hub: Hub) -> None:
    repository = hub({"a.gguf": b"GGUF"})
    for look in (checkpoint.open, checkpoint.open_header):
        with pytest.raises(CheckpointError, match="no such file"):
            look(repository, ("b.gguf",))
