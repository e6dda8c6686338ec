"""The neighbours of these tests that are no tests, and the folders that mistral.rs wrote or loaded."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bestiary.sources.folder import Folder
from bestiary_quant.uqff import checkpoint, selection

HERE = Path(__file__).parent
DATA = HERE / "data"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bestiary_test_uqff_{name}", HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    return module("tiny")


@pytest.fixture(scope="session")
def running() -> ModuleType:
    return module("running")


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def references() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / "references.json").read_text())
    return found


@pytest.fixture
def opened() -> Iterator[Callable[..., checkpoint.UqffCheckpoint]]:
    """Opens a model of a folder, until the test ends."""
    made: list[checkpoint.UqffCheckpoint] = []

    def open_folder(folder: Path, wanted: str | None = None) -> checkpoint.UqffCheckpoint:
        repository = Folder(folder, "test")
        made.append(checkpoint.open(repository, selection.files(repository, wanted)))
        return made[-1]

    yield open_folder
    for one in made:
        one.close()
