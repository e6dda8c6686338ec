"""What the tests of the core share: folders that look like repositories."""

import lzma
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bestiary.sources.folder import Folder

# The tensors of these tests are tiny: beside other work, threads that wait for each other cost five times the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def folder_repository() -> Callable[[Path], Folder]:
    """Makes a Repository of a folder."""
    return lambda folder: Folder(folder, "test/model")


@pytest.fixture(scope="session")
def tokenizer_folders(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The real tokenizers of the foreign data by name, unpacked."""
    target = tmp_path_factory.mktemp("tokenizers")
    for source in sorted((shared_data / "tokenizers" / "hf").rglob("*")):
        place = target / source.relative_to(shared_data / "tokenizers" / "hf")
        if source.is_dir():
            place.mkdir()
        elif source.suffix == ".xz":
            place.with_suffix("").write_bytes(lzma.decompress(source.read_bytes()))
        else:
            shutil.copy(source, place)
    return {folder.name: folder for folder in sorted(target.iterdir())}
