"""models.py, which makes small models, for the tests of writing."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _module(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"bestiary_test_writing_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def models() -> ModuleType:
    """models.py, small models that are the same on every machine."""
    return _module("models")


@pytest.fixture(scope="session")
def references() -> ModuleType:
    """make_references.py, for its constants."""
    return _module("make_references")
