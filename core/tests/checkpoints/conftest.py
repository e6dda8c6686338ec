import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


class Folder:
    """A Repository over a folder; `read` lists what was opened beyond names and first bytes."""

    local = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = self.origin = str(folder)
        self.read: list[str] = []

    def files(self) -> Mapping[str, int]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in paths}

    def path(self, name: str) -> Path:
        self.read.append(name)
        return self.folder / name

    def head(self, name: str, length: int) -> bytes:
        with (self.folder / name).open("rb") as file:
            return file.read(length)

    def fetch(self, names: Iterable[str], progress: object = None) -> None:
        raise NotImplementedError

    def missing(self, names: Iterable[str]) -> Mapping[str, int]:
        return {}


@pytest.fixture
def folder() -> type[Folder]:
    return Folder


@pytest.fixture(scope="session")
def child() -> Callable[..., Any]:
    """Run a task of child.py in a process of its own, with a time limit, and return its answer."""

    def run(*arguments: object) -> Any:
        done = subprocess.run(
            [sys.executable, str(HERE / "child.py"), *map(str, arguments)], capture_output=True, timeout=90, check=False
        )
        assert done.returncode == 0, f"exit {done.returncode}: {done.stderr.decode()[-2000:]}"
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def corpus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bestiary_test_corpus", HERE / "corpus.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
