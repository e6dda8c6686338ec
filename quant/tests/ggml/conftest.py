"""The outside writer, and files that it makes of tiny Llamas."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from neighbours import beside
from safetensors.torch import load_file

from bestiary.registry import Registry, default_registry
from bestiary.testing.reference import Reference, make_reference
from bestiary.testing.tiny import decoder


@pytest.fixture(scope="session")
def writing() -> ModuleType:
    """writing.py, which writes the files."""
    return beside(__file__, "writing")


@pytest.fixture(scope="session")
def registry() -> Registry:
    """What is installed, which has the format."""
    return default_registry()


@dataclass(frozen=True)
class Made:
    """A tiny Llama with random weights, and a file of it."""

    path: Path
    written: Any
    reference: Reference
    """transformers' model of the numbers that the file holds."""


@pytest.fixture
def made(tmp_path: Path, writing: ModuleType) -> Callable[..., Made]:
    """Makes a file of a version and a type; other arguments change the configuration."""

    def make(version: tuple[str, int], code: int = 0, name: str = "model.bin", **changes: Any) -> Made:
        import torch

        config = decoder("LlamaForCausalLM", "llama", **changes)
        reference = make_reference(config, tmp_path.parent / f"{tmp_path.name} {name}")
        stored = load_file(reference.folder / "model.safetensors")
        weights = {key: tensor.numpy() for key, tensor in stored.items()}
        written = writing.llama(weights, config, version, code)
        state: Mapping[str, Any] = {key: torch.from_numpy(value.copy()) for key, value in written.values.items()}
        reference.model.load_state_dict(state)
        return Made(written.write(tmp_path / name), written, reference)

    return make
