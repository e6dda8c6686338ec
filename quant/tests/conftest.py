"""What the tests of the distribution share: the outside writer of GGUF files, and folders as repositories."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from neighbours import beside

from bestiary.sources.folder import Folder

# The tensors of these tests are tiny: beside other work, threads that wait for each other cost five times the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def converting() -> ModuleType:
    """converting.py, which writes GGUF files with the gguf package."""
    return beside(__file__, "converting")


@pytest.fixture(scope="session")
def companions() -> ModuleType:
    """companions.py, which writes what sees for a text model (mmproj) with the gguf package."""
    return beside(__file__, "companions")


@pytest.fixture
def repository(tmp_path: Path) -> Callable[[], Folder]:
    """Makes a Repository of the test's folder, as it is then."""
    return lambda: Folder(tmp_path, "test/model")
