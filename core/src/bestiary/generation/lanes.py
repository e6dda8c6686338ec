"""Sequences that a model writes side by side, each in blocks of its own of the engine's cache."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Many
from typing import Any, Protocol

import torch
from torch import nn

from bestiary.generation.engine.graphs import DecodeGraphs, cuda_graph
from bestiary.generation.engine.sequence import Sequence, Work
from bestiary.generation.rooms import BLOCK, Fitted, make_rooms
from bestiary.generation.sources import SourceLayer, Sources
from bestiary.nn.batch import AttentionSpec, Batch


class LaneModel(Fitted, Protocol):
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


class _Looking:
    """The model, and what the rows of a step look at."""

    def __init__(self, model: LaneModel, sources: list[SourceLayer]) -> None:
        self._model, self.sources = model, sources

    def hidden(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self._model.hidden(tokens, batch, self.sources)

    def modules(self) -> Iterable[nn.Module]:
        return self._model.modules()


class Lanes:
    """Room for sequences whose longest lengths are known; nothing is shared, and nothing given back before the end."""

    def __init__(
        self,
        model: LaneModel,
        longest: Many[int],
        sources: Sources | None = None,
        looks: Many[int] | None = None,
    ) -> None:
        """One lane for each of `longest`, of layers that keep every row.

        `looks` says which of the sources each lane looks at; None: as many as there are lanes.
        """
        self._model, self._sources = model, sources
        self._looks = list(range(len(longest))) if looks is None else list(looks)
        self._cache, self._rooms = make_rooms(model, model.specs, longest)
        self._lanes = [Sequence([], 0) for _ in longest]
        for lane, room in zip(self._lanes, self._rooms, strict=True):
            lane.tables = [list(room)]
        self._record = cuda_graph if model.device.type == "cuda" else model.operations.record
        self._decoding: dict[tuple[int, ...], tuple[_Looking, DecodeGraphs | None]] = {}
        """By what the rows look at: steps of one row for each lane."""

    def run(self, lanes: Many[int], rows: Many[torch.Tensor], *, every: bool = False) -> torch.Tensor:
        """Some lanes read tokens [n], or rows of codes [n, Q] -> the states [N, D] before the head of each one's last.

        `every` asks for those of all.  The result may lie in a buffer that the next step overwrites.
        """
        work = []
        for lane, codes in zip(lanes, rows, strict=True):
            sequence = self._lanes[lane]
            tokens: list[Any] = codes.tolist()  # numbers, or a number of each codebook
            sequence.tokens += tokens
            work.append(Work(sequence, sequence.computed, len(codes)))
            sequence.computed += len(codes)
        looks, counts = tuple(self._looks[lane] for lane in lanes), [each.count for each in work]
        if all(count == 1 for count in counts):
            looking, graphs = self._decoding.get(looks) or self._prepare(looks)
            if graphs is not None and graphs.fits(work):
                return graphs.run(work)
            states = looking.sources
        else:
            states = self._states(looks, counts)
        hidden = self._model.hidden(torch.cat(list(rows)).to(self._cache.device), self._batch(work), states)
        if every or len(hidden) == len(work):
            return hidden
        return hidden[(torch.tensor(counts).cumsum(0) - 1).to(hidden.device)]

    def clear(self, lane: int) -> None:
        """It begins anew."""
        self._lanes[lane].tokens, self._lanes[lane].computed = [], 0

    def copy(self, source: int, target: int) -> None:
        """One lane becomes what another is, and goes its own way from there."""
        old, new = self._lanes[source], self._lanes[target]
        new.tokens, new.computed = list(old.tokens), old.computed
        used, here, there = -(-old.computed // BLOCK), self._rooms[source], self._rooms[target]
        self._cache.copy([(0, here[place], there[place]) for place in range(used)])

    def _prepare(self, looks: tuple[int, ...]) -> tuple[_Looking, DecodeGraphs | None]:
        looking = _Looking(self._model, self._states(looks, [1] * len(looks)))
        graphs = None if self._record is None else DecodeGraphs(looking, self._cache, self._record, padded=False)
        self._decoding[looks] = looking, graphs
        return looking, graphs

    def _states(self, looks: Many[int], counts: Many[int]) -> list[SourceLayer]:
        return [] if self._sources is None else self._sources.states(looks, counts)

    def _batch(self, work: Many[Work]) -> Batch:
        positions = torch.cat([torch.arange(each.start, each.end) for each in work])
        lengths = torch.cat([torch.full((each.count,), each.end) for each in work])
        device = self._cache.device
        return Batch(positions.to(device), lengths.to(device), self._cache.states(work))
