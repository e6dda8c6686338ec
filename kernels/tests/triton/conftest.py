"""What the tests of the kernels for GPUs share: where they run, and weights in every format."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from bestiary_kernels.triton.weight import Weight

    MakeWeight = Callable[..., Weight]

if not torch.cuda.is_available():
    # Triton chooses between its compiler and its interpreter when a kernel is defined.
    os.environ["TRITON_INTERPRET"] = "1"

THOROUGH = "BESTIARY_THOROUGH"
"""The variable with which every test runs where there is no GPU, too."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if torch.cuda.is_available() or os.environ.get(THOROUGH) or "thorough" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.skip(reason=f"one of many alike, slow without a GPU; {THOROUGH}=1 runs it"))


HALVES = {"Q4_0": (0,), "Q8_0": (0,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where 16-bit floats lie in a block."""


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(params=["small", "large"])
def large(request: pytest.FixtureRequest) -> bool:
    """Every check is made at small shapes wherever it runs, and at those of real models on a GPU."""
    wanted: bool = request.param == "large"
    if wanted and not torch.cuda.is_available():
        pytest.skip("the shapes of real models need a GPU: Triton's interpreter takes minutes for them")
    return wanted


@pytest.fixture
def make_weight(device: str) -> MakeWeight:
    """Weights of a format, of any codes that there are: (format, [..., N], K, dtype of plain numbers)."""

    def make(name: str, rows: tuple[int, ...], columns: int, dtype: torch.dtype = torch.float32) -> Weight:
        from bestiary_kernels.triton.weight import Weight

        source = torch.Generator().manual_seed(columns)

        def numbers(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=source)

        def codes(*shape: int) -> torch.Tensor:
            return torch.randint(0, 256, shape, dtype=torch.uint8, generator=source)

        if name == "plain":
            return Weight(name, numbers(*rows, columns).to(device, dtype))
        if name == "int4":
            scales = (numbers(*rows, columns // 32) * 0.1).half().to(device)
            return Weight(name, codes(*rows, columns // 2).to(device), scales, scales * -7.5)
        if name == "float8":
            numbers8 = numbers(*rows, columns).to(torch.float8_e4m3fn).to(device)
            tiles = -(-rows[-1] // 128), -(-columns // 128)
            return Weight(name, numbers8, numbers(*rows[:-1], *tiles).abs().to(device))
        if name == "float8_rows":
            groups = 1 if columns % 64 else columns // 64
            numbers8 = numbers(*rows, columns).to(torch.float8_e4m3fn).to(device)
            return Weight(name, numbers8, numbers(*rows, groups).abs().to(device))
        from bestiary_kernels.triton.formats.table import FORMATS

        kind = FORMATS[name]
        blocks = codes(*rows, columns // kind.length, kind.size)
        for place in HALVES.get(name, ()):
            blocks[..., place : place + 2] = (numbers(*blocks.shape[:-1], 1) * 0.1).half().view(torch.uint8)
        if name == "MXFP4":
            blocks[..., 0] = 118 + blocks[..., 0] % 8
        return Weight(name, blocks.flatten(-2).to(device))

    return make
