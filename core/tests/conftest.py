"""What the tests of the core share: folders that look like repositories."""

import lzma
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from bestiary.errors import ModelNotFound

# The tensors of these tests are tiny: beside other work, threads that wait for each other cost five times the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass
class FolderRepository:
    """A local folder as a Repository."""

    folder: Path
    id: str = "test/model"
    local: bool = True

    @property
    def origin(self) -> str:
        return str(self.folder)

    def files(self) -> Mapping[str, int]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in paths}

    def path(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise ModelNotFound(f"no file {name}", where=self.origin)
        return path

    def head(self, name: str, length: int) -> bytes:
        return self.path(name).read_bytes()[:length]

    def fetch(self, names: Iterable[str], progress: object = None) -> None:
        for name in names:
            self.path(name)

    def missing(self, names: Iterable[str]) -> Mapping[str, int]:
        return {}


@pytest.fixture(scope="session")
def folder_repository() -> Callable[[Path], FolderRepository]:
    """Makes a Repository of a folder."""
    return FolderRepository


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
