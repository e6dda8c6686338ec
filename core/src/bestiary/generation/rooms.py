"""Room in the engine's cache for what is of a known length: blocks of its own for each, that are never given back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Protocol

import torch

from bestiary.generation.engine.paged import PagedCache
from bestiary.nn.batch import AttentionSpec
from bestiary.nn.operations import Operations

BLOCK = 16
"""Tokens of a block."""


class Fitted(Protocol):
    """A model that is ready to compute."""

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""

    @property
    def device(self) -> torch.device:
        """Where it lies."""

    @property
    def operations(self) -> Operations:
        """With which it was fitted."""


def make_rooms(model: Fitted, specs: Sequence[AttentionSpec], lengths: Sequence[int]) -> tuple[PagedCache, list[range]]:
    """A cache for layers of a model that keep every token, and the blocks of each length.

    On a CPU what was never written takes no memory.
    """
    ends = list(accumulate((-(-length // BLOCK) for length in lengths), initial=0))
    cache = PagedCache(
        specs,
        ends[-1] * BLOCK,
        BLOCK,
        sequences=len(lengths),
        step_tokens=0,
        dtype=model.dtype,
        device=model.device,
        operations=model.operations,
    )
    return cache, [range(*pair) for pair in pairwise(ends)]
