"""The neighbours of these tests that are no tests, and the folders that mistral.rs wrote or loaded."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from neighbours import beside

from bestiary.sources.folder import Folder
from bestiary_quant.uqff import checkpoint, selection

HERE = Path(__file__).parent
DATA = HERE / "data"


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    return beside(__file__, "tiny")


@pytest.fixture(scope="session")
def running() -> ModuleType:
    return beside(__file__, "running")


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
