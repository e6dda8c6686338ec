"""Sequences that a model writes side by side, each in blocks of its own of the engine's cache."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Many
from typing import Protocol

import torch
from torch import nn

from bestiary.generation.engine.graphs import DecodeGraphs, cuda_graph
from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.sequence import Sequence, Work
from bestiary.nn.batch import AttentionSpec, Batch
from bestiary.nn.operations import Operations
from bestiary.speech.sources import BLOCK, SourceLayer, Sources


class LaneModel(Protocol):
    """What writes rows of codes."""

    @property
    def specs(self) -> Many[AttentionSpec]:
        """What each layer remembers of a lane."""

    def hidden(self, codes: torch.Tensor, batch: Batch, sources: Many[SourceLayer]) -> torch.Tensor:
        """codes [T, Q] of some lanes, one lane after another -> the states [T, D] before the head.

        `sources` are what each layer looks at; none where the model has no encoder.
        """

    def modules(self) -> Iterable[nn.Module]:
        """Those that a recorded step would not call again."""


class _Decoding:
    """The model, and what the lanes of a step look at."""

    def __init__(self, model: LaneModel) -> None:
        self._model = model
        self.sources: list[SourceLayer] = []

    def hidden(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self._model.hidden(tokens, batch, self.sources)

    def modules(self) -> Iterable[nn.Module]:
        return self._model.modules()


class Lanes:
    """Room for sequences whose longest lengths are known; nothing is shared, and nothing given back before the end.

    On a CPU what was never written takes no memory.
    """

    def __init__(
        self,
        model: LaneModel,
        longest: Many[int],
        sources: Sources | None = None,
        *,
        dtype: torch.dtype,
        device: torch.device,
        operations: Operations,
    ) -> None:
        """One lane for each of `longest`, of layers that keep every row."""
        self._model, self._sources, self._decoding = model, sources, _Decoding(model)
        self._running: tuple[int, ...] = ()
        blocks = [-(-length // BLOCK) for length in longest]
        self._cache = PagedCache(
            model.specs,
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
        record = cuda_graph if device.type == "cuda" else operations.record
        self._graphs = None if record is None else DecodeGraphs(self._decoding, self._cache, record, padded=False)

    def run(self, lanes: Many[int], rows: Many[torch.Tensor]) -> torch.Tensor:
        """Some lanes read rows [n, Q] each -> the states [N, D] before the head of the last row of each.

        The result may lie in a buffer that the next step overwrites.  From one step to the next lanes only drop out.
        """
        work = []
        for lane, codes in zip(lanes, rows, strict=True):
            sequence = self._lanes[lane]
            sequence.tokens += [tuple(row) for row in codes.tolist()]  # type: ignore[misc]  # a token of each codebook
            work.append(Work(sequence, sequence.computed, len(codes)))
            sequence.computed += len(codes)
        counts = [each.count for each in work]
        if any(count > 1 for count in counts):
            hidden = self._hidden(self._states(lanes, counts), work, rows)
            return hidden[(torch.tensor(counts).cumsum(0) - 1).to(hidden.device)]
        if self._running != tuple(lanes):
            self._running, self._decoding.sources = tuple(lanes), self._states(lanes, counts)
        if self._graphs is not None and self._graphs.fits(work):
            return self._graphs.run(work)
        return self._hidden(self._decoding.sources, work, rows)

    def _states(self, lanes: Many[int], counts: Many[int]) -> list[SourceLayer]:
        return [] if self._sources is None else self._sources.states(lanes, counts)

    def _hidden(self, sources: Many[SourceLayer], work: Many[Work], rows: Many[torch.Tensor]) -> torch.Tensor:
        return self._model.hidden(torch.cat(list(rows)).to(self._cache.device), self._batch(work), sources)

    def _batch(self, work: Many[Work]) -> Batch:
        positions = torch.cat([torch.arange(each.start, each.end) for each in work])
        lengths = torch.cat([torch.full((each.count,), each.end) for each in work])
        device = self._cache.device
        return Batch(positions.to(device), lengths.to(device), self._cache.states(work))
