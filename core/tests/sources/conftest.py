"""A local hub, a cache of its own for every test, and no waiting between huggingface_hub's retries."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from types import SimpleNamespace
from typing import Any

import pytest

from bestiary.records import SourceOptions
from bestiary.sources.hub import open_hub
from bestiary.sources.hub_repository import HubRepository
from bestiary.testing.hub import LocalHub

ID = "zoo/tiny-lion"
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
FILES = {"config.json": b'{"model_type": "lion"}', "model.safetensors": WEIGHTS, "part/notes.txt": b"small\n"}

Open = Callable[..., HubRepository]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hurried = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", hurried)
    monkeypatch.setattr("huggingface_hub.file_download.time", hurried)


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def lion(hub: LocalHub) -> str:
    """The commit of a small model on the hub."""
    return hub.add(ID, FILES)


@pytest.fixture
def opened(hub: LocalHub, cache: Path) -> Open:
    """open_hub with this test's hub and cache."""

    def opened(id: str = ID, **options: Any) -> HubRepository:
        options = {"cache_dir": str(cache), "token": False, **options}
        return open_hub(id, SourceOptions(**options), endpoint=hub.endpoint)

    return opened


@pytest.fixture
def child(hub: LocalHub, cache: Path, tmp_path: Path) -> Callable[..., "Popen[str]"]:
    """Starts a Python process in which `repository` is the model of this test's hub."""

    def child(code: str, before: str = "", **arguments: Any) -> "Popen[str]":
        script = (
            "from bestiary.records import SourceOptions\n"
            "from bestiary.errors import *\n"
            "from bestiary.sources.hub import open_hub\n"
            f"{before}\n"
            f"repository = open_hub({ID!r}, SourceOptions(cache_dir={str(cache)!r}, token=False))\n"
            f"{code}\n"
        )
        environment = {**os.environ, **hub.environment, "HF_HOME": str(tmp_path / "home")}
        return Popen([sys.executable, "-c", script], env=environment, stdout=PIPE, stderr=PIPE, text=True, **arguments)

    return child
