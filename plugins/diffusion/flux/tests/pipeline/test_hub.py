"""A pipeline from a hub: what is fetched, and from where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bestiary
from bestiary.errors import ModelNotFound
from bestiary.testing.hub import LocalHub

Make = Callable[..., tuple[Path, Any]]
OURS: dict[str, Any] = {"height": 32, "width": 48, "steps": 2, "max_sequence_length": 16, "seed": 3, "output": "latent"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as hub:
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_repository_with_more_than_its_parts(made: Make, hub: LocalHub, tmp_path: Path) -> None:
    folder, _ = made()
    hub.add("org/flux", {**files_of(folder), "flux1-schnell.safetensors": bytes(5000), "ae.safetensors": bytes(5000)})
    with bestiary.load(str(folder), progress=False) as local:
        expected = local("a red fox", **OURS)
    with bestiary.load("org/flux", cache_dir=str(tmp_path), progress=False) as pipe:
        assert torch.equal(pipe("a red fox", **OURS), expected)
    assert hub.count("GET", "flux1-schnell.safetensors") == hub.count("GET", "ae.safetensors") == 0
    with bestiary.load("org/flux", cache_dir=str(tmp_path), offline=True, progress=False) as pipe:
        assert torch.equal(pipe("a red fox", **OURS), expected)


def test_nothing_is_fetched_from_elsewhere_unasked(made: Make, hub: LocalHub, tmp_path: Path) -> None:
    folder, _ = made()
    whole = files_of(folder)
    hub.add(
        "org/part", {name: data for name, data in whole.items() if not name.startswith(("vae/", "text_encoder_2/"))}
    )
    hub.add("org/whole", whole)
    hub.add("black-forest-labs/FLUX.1-schnell", whole)
    before = len(hub.requests)
    with pytest.raises(ModelNotFound, match="needs the part vae"):
        bestiary.load("org/part", cache_dir=str(tmp_path), progress=False)
    asked = [request.path for request in hub.requests[before:]]
    assert asked and all("org/part" in path for path in asked)
    assert not any(path.endswith(".safetensors") for path in asked)
    with bestiary.load("org/part", cache_dir=str(tmp_path), parts="org/whole", progress=False) as pipe:
        assert pipe("a red fox", **OURS).shape == (1, 4, 16, 24)
    assert hub.count("GET", "org/whole/resolve") > 0
    fetched = {request.path for request in hub.requests if request.method == "GET" and "org/whole" in request.path}
    assert not any("transformer" in path and path.endswith(".safetensors") for path in fetched)
    assert not any("FLUX.1-schnell" in request.path for request in hub.requests)
