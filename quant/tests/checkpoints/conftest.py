"""What the tests of quantised checkpoints share: files of a few tensors, opened, and plain packers of the formats."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from neighbours import beside
from safetensors.torch import save_file

from bestiary.checkpoints import safetensors_checkpoint
from bestiary.checkpoints.safetensors_checkpoint import SafetensorsCheckpoint
from bestiary.sources.folder import Folder
from bestiary_quant.checkpoints.checkpoint import QuantizedCheckpoint
from bestiary_quant.checkpoints.loading import load

Tensors = Mapping[str, torch.Tensor]


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Callable[[Tensors], SafetensorsCheckpoint]]:
    """A file of these tensors, opened."""
    opened = []

    def make(tensors: Tensors) -> SafetensorsCheckpoint:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        save_file(dict(tensors), folder / "model.safetensors")
        opened.append(safetensors_checkpoint.open(Folder(folder, "test/model"), ("model.safetensors",)))
        return opened[-1]

    yield make
    for checkpoint in opened:
        checkpoint.close()


@pytest.fixture
def loaded(stored: Callable[[Tensors], SafetensorsCheckpoint]) -> Callable[..., QuantizedCheckpoint]:
    """The same, read as the configuration says."""

    def make(tensors: Tensors, config: Mapping[str, Any], asked: str | None = None) -> QuantizedCheckpoint:
        return load(stored(tensors), config, asked)

    return make


@pytest.fixture(scope="session")
def packing() -> ModuleType:
    """packing.py, which packs weights as the pages of the formats say."""
    return beside(__file__, "packing")


@pytest.fixture(scope="session")
def headers() -> ModuleType:
    """headers.py, checkpoints that announce what they do not have."""
    return beside(__file__, "headers")
