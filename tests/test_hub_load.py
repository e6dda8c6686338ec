"""Loading from a hub, end to end: what is asked first, what is fetched, and what a failure costs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import bestiary
from bestiary.cli import invoke
from bestiary.errors import CorruptDownload, MissingPlugin, OptionError, OutOfMemory, WeightMismatch
from bestiary.testing.hub import Fault, LocalHub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub() as hub:
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


@pytest.fixture
def published(hub: LocalHub) -> LocalHub:
    """The packaged model as org/demo."""
    import bestiary_demo

    folder = bestiary_demo.folder()
    hub.add("org/demo", {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    return hub


def test_a_hub_model_answers_as_the_local_one(published: LocalHub, tmp_path: Path) -> None:
    with bestiary.load("org/demo", cache_dir=str(tmp_path), progress=False) as pipe, bestiary.load("demo") as local:
        question = "What is the capital of France?"
        assert pipe.chat(question, temperature=0.0).tokens == local.chat(question, temperature=0.0).tokens
    with bestiary.load("org/demo", cache_dir=str(tmp_path), offline=True, progress=False) as pipe:
        assert pipe.chat("Hello!", max_tokens=3).tokens


def test_a_missing_plugin_is_reported_before_any_weight_is_fetched(hub: LocalHub, tmp_path: Path) -> None:
    config = json.dumps({"architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2"}).encode()
    hub.add("org/other", {"config.json": config, "model.safetensors": bytes(100_000)})
    with pytest.raises(MissingPlugin, match="Mamba2ForCausalLM"):
        bestiary.load("org/other", cache_dir=str(tmp_path), progress=False)
    assert hub.count("GET", "config.json") == 1
    assert hub.count("GET", "model.safetensors") == hub.count("HEAD", "model.safetensors") == 0


def test_weights_that_do_not_fit_are_told_before_they_are_fetched(
    published: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bestiary_demo

    files = {path.name: path.read_bytes() for path in bestiary_demo.folder().iterdir() if path.is_file()}
    config = json.loads(files["config.json"])
    published.add("org/odd", {**files, "config.json": json.dumps({**config, "intermediate_size": 500}).encode()})

    def fails(error: type[Exception], model: str, **options: str) -> None:
        with pytest.raises(error):
            bestiary.load(model, cache_dir=str(tmp_path), progress=False, **options)
        weights = [request for request in published.requests if "model.safetensors" in request.path]
        assert all("Range" in request.headers for request in weights)

    fails(WeightMismatch, "org/odd")
    fails(OptionError, "org/demo", dtype="int3")
    monkeypatch.setattr("bestiary.placement.free_memory", lambda device: 1000)
    fails(OutOfMemory, "org/demo")
    assert not list(tmp_path.rglob("model.safetensors"))


def test_inspect_plans_from_the_header_alone(
    published: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["inspect", "org/demo", "--cache-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "model.safetensors" in shown and "to fetch" in shown and "model.layers.{0-" in shown
    ranges = [request.headers.get("Range") for request in published.requests if "model.safetensors" in request.path]
    assert ranges and all(ranges), "the weights were asked for without a range"
    assert not list(tmp_path.rglob("model.safetensors"))


def test_check_compares_hashes_and_notices_an_edited_file(
    published: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with bestiary.load("org/demo", cache_dir=str(tmp_path), progress=False):
        pass
    assert invoke(["check", "org/demo", "--cache-dir", str(tmp_path)]) == 0
    assert "model.safetensors" in (shown := capsys.readouterr().out) and "sha256" in shown and "the plan fits" in shown
    (weights,) = tmp_path.rglob("model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(content)
    assert invoke(["check", "org/demo", "--cache-dir", str(tmp_path)]) == 1
    assert "model.safetensors" in capsys.readouterr().err


def test_a_corrupt_download_is_never_loaded(published: LocalHub, tmp_path: Path) -> None:
    published.faults.append(Fault("model.safetensors", method="GET", corrupt=True, times=99))
    with pytest.raises(CorruptDownload):
        bestiary.load("org/demo", cache_dir=str(tmp_path), progress=False)


def test_progress_tells_of_the_download(published: LocalHub, tmp_path: Path) -> None:
    events: list[bestiary.Progress] = []
    with bestiary.load("org/demo", cache_dir=str(tmp_path), progress=events.append):
        pass
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages[0] == "download" and stages[-1] == "load"
    for stage in stages:
        last = [event for event in events if event.stage == stage][-1]
        assert last.done == last.total
