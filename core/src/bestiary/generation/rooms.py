"""Room in the engine's cache for what is of a known length: blocks of its own for each, that are never given back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch

from bestiary.generation.engine.paged import PagedCache
from bestiary.nn.batch import AttentionSpec
from bestiary.nn.operations import Operations

BLOCK = 16
"""Tokens of a block."""


def make_rooms(
    specs: Sequence[AttentionSpec],
    lengths: Sequence[int],
    *,
    dtype: torch.dtype,
    device: torch.device,
    operations: Operations,
) -> tuple[PagedCache, list[range]]:
    """A cache of layers that keep every token, and the blocks of each length.

    On a CPU what was never written takes no memory.
    """
    ends = list(accumulate((-(-length // BLOCK) for length in lengths), initial=0))
    cache = PagedCache(
        specs,
        ends[-1] * BLOCK,
        BLOCK,
        sequences=len(lengths),
        step_tokens=0,
        dtype=dtype,
        device=device,
        operations=operations,
    )
    return cache, [range(*pair) for pair in pairwise(ends)]
