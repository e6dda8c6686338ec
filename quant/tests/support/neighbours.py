"""The neighbours of tests that are no tests: modules beside them, and programs that run in a process of their own."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def beside(test: str, name: str = "corpus") -> ModuleType:
    """The module `name` in the folder of a file, under a name that no other folder's has."""
    path = Path(test).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"bestiary_test_{path.parent.name}_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def outcomes_in_a_process(test: str, folder: Path) -> Any:
    """What child.py in the folder of a test file prints, as JSON; it may hang or eat the memory."""
    command = [sys.executable, str(Path(test).with_name("child.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)
