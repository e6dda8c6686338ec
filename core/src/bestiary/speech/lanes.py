"""Sequences that a model writes side by side, each in blocks of its own of the engine's cache."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.sequence import Sequence, Work
from bestiary.nn.batch import AttentionSpec, Batch
from bestiary.nn.operations import Operations

BLOCK = 16


class Lanes:
    """Room for sequences whose longest lengths are known; nothing is shared, and nothing given back before the end.

    On a CPU what was never written takes no memory.
    """

    def __init__(
        self,
        specs: Many[AttentionSpec],
        longest: Many[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
        operations: Operations,
    ) -> None:
        """One lane for each of `longest`, of layers that keep every token."""
        blocks = [-(-length // BLOCK) for length in longest]
        self._cache = PagedCache(
            specs,
            sum(blocks) * BLOCK,
            BLOCK,
            sequences=len(blocks),
            step_tokens=0,
            dtype=dtype,
            device=device,
            operations=operations,
        )
        self._lanes: list[Sequence] = []
        first = 0
        for count in blocks:
            lane = Sequence([], 0)
            lane.tables = [list(range(first, first + count))]
            self._lanes.append(lane)
            first += count

    def batch(self, lanes: Many[int], counts: Many[int]) -> Batch:
        """A step in which each of some lanes gets so many rows more, one lane after another; outputs are their last."""
        device = self._cache.device
        work = [
            Work(self._lanes[lane], self._lanes[lane].computed, count)
            for lane, count in zip(lanes, counts, strict=True)
        ]
        for each in work:
            each.sequence.computed = each.end
        positions = torch.cat([torch.arange(each.start, each.end) for each in work])
        lengths = torch.cat([torch.full((each.count,), each.end) for each in work])
        last = torch.tensor([each.count for each in work]).cumsum(0) - 1
        return Batch(positions.to(device), lengths.to(device), self._cache.states(work), last.to(device))
