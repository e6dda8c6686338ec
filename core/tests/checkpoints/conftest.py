import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bestiary.sources import folder as folder_source

HERE = Path(__file__).parent


class Folder(folder_source.Folder):
    """A folder as a repository; `read` lists what was opened beyond names and first bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, str(folder))
        self.read: list[str] = []

    def path(self, name: str) -> Path:
        self.read.append(name)
        return super().path(name)

    def head(self, name: str, length: int) -> bytes:
        before = len(self.read)
        first = super().head(name, length)
        del self.read[before:]
        return first


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
