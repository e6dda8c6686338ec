"""The numbers that the tests quantise, and what other programs made of them (make_references.py)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

DATA = Path(__file__).with_name("data")


@pytest.fixture(scope="session")
def numbers() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [32, 512], eight each: Gaussian, heavy tails and offsets, of the demo model, of a model of stories; and
    importance [512], whose largest number is some thousand times the smallest."""
    with numpy.load(DATA / "numbers.npz") as file:
        return torch.from_numpy(file["x"]).float(), torch.from_numpy(file["importance"])


@pytest.fixture(scope="session")
def llama_cpp() -> Mapping[str, Any]:
    """The bytes of llama.cpp for the numbers: "Q4_K" without importance, "Q4_K_weighted" with it."""
    with numpy.load(DATA / "llama_cpp.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file if name != "version"}
