"""The tables of the IQ types: lattices of points that a few bits choose from, and patterns of signs.

The lattices are those of ggml-common.h (`iq2xxs_grid` and others); the gguf package carries them, packed.
"""

from __future__ import annotations

from functools import lru_cache

import torch


@lru_cache(maxsize=64)
def grid(name: str, device: torch.device) -> torch.Tensor:
    """The points of a type: [K, 8], or [K, 4] for IQ3, as float32."""
    from gguf import quants

    kind = getattr(quants, name)
    kind.init_grid()
    return torch.tensor(kind.grid.reshape(kind.grid_shape), device=device)


@lru_cache(maxsize=8)
def signs(device: torch.device) -> torch.Tensor:
    """Signs [128, 8] of eight numbers by seven bits: an even number of them is negative, so the eighth needs no bit."""
    return torch.tensor(
        [
            [-1.0 if code >> place & 1 else 1.0 for place in range(7)] + [-1.0 if code.bit_count() % 2 else 1.0]
            for code in range(128)
        ],
        device=device,
    )
