"""The cache of a model in blocks: which layers share block tables, and each layer's memory."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from bestiary.errors import OptionError
from bestiary.generation.engine.cache_types import check_cache_type
from bestiary.generation.engine.paged_attention import AttentionStep, PagedLayer
from bestiary.generation.engine.paged_memory import LayerBlocks
from bestiary.generation.engine.paged_state import PagedState, StateStep
from bestiary.generation.engine.scheduler import Group
from bestiary.generation.engine.sequence import Work
from bestiary.nn.batch import AttentionSpec, LayerSpec, RecurrentSpec
from bestiary.nn.operations import PLAIN, Operations


class PagedCache:
    """The blocks of every layer: keys and values [blocks * block size, KH * D] each, or what they are packed into.

    Layers with the same window share a group, and so its block tables.
    """

    def __init__(
        self,
        specs: Many[LayerSpec],
        tokens: int,
        block_size: int,
        *,
        sequences: int,
        step_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        cache_type: str = "auto",
        operations: Operations = PLAIN,
    ) -> None:
        """Room for `tokens` of all sequences together; a window's layers need no more than its span for each.

        `cache_type` is one of `bestiary.generation.engine.cache_types`; raises OptionError for any other.
        """
        windows = sorted(
            {spec.window for spec in specs if isinstance(spec, AttentionSpec)},
            key=lambda window: (window is not None, window or 0),
        )
        groups = [
            Group(-(-_span(tokens, window, sequences, step_tokens, block_size) // block_size), window)
            for window in windows
        ]
        if any(isinstance(spec, RecurrentSpec) for spec in specs):
            # One for each that runs, and as many that are kept for prefixes.
            groups.append(Group(2 * sequences, recurrent=True))
        self._make(specs, tuple(groups), block_size, dtype, device, cache_type, operations)

    def beside(self, specs: Many[LayerSpec], dtype: torch.dtype, device: torch.device) -> PagedCache:
        """A cache for another model's layers over the same block tables: what one sequence has here, it has there.

        OptionError where those layers see further back than any group of this cache keeps.
        """
        other = object.__new__(PagedCache)
        other._make(specs, self.groups, self.block_size, dtype, device, self.cache_type, self.operations)
        return other

    def _make(
        self,
        specs: Many[LayerSpec],
        groups: tuple[Group, ...],
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
        cache_type: str,
        operations: Operations,
    ) -> None:
        check_cache_type(cache_type)
        self.operations = operations
        self.block_size, self.groups, self.device, self.cache_type = block_size, groups, device, cache_type
        views = [_view(spec, groups) for spec in specs]
        self.views = tuple(dict.fromkeys(views))
        """Which tables are looked at, and how far back."""
        self.view_of = tuple(self.views.index(view) for view in views)
        self.layers = tuple(
            LayerBlocks.empty(spec, groups[view[0]].blocks, block_size, dtype, device, cache_type)
            for spec, view in zip(specs, views, strict=True)
        )

    @property
    def nbytes(self) -> int:
        """What the cache can come to hold; on a CPU, memory that was never written is not resident."""
        return sum(memory.nbytes for layer in self.layers for memory in layer.memories)

    def copy(self, copies: Many[tuple[int, int, int]]) -> None:
        """Copy blocks within groups: (group, from, to)."""
        for group, source, target in copies:
            for layer, view in zip(self.layers, self.view_of, strict=True):
                if self.views[view][0] == group:
                    layer.copy(source, target)

    def states(self, work: Many[Work]) -> list[PagedLayer | PagedState]:
        """Each layer's view of a step."""
        return self.layer_states([self._step(work, table, window) for table, window in self.views])

    def layer_states(self, steps: Many[AttentionStep | StateStep]) -> list[PagedLayer | PagedState]:
        """Each layer's view of a step, from what each of `views` has of it."""
        made: list[PagedLayer | PagedState] = []
        for layer, view in zip(self.layers, self.view_of, strict=True):
            step = steps[view]
            if isinstance(step, AttentionStep):
                made.append(PagedLayer(layer, step, self.operations))
            else:
                made.append(PagedState(layer, step))
        return made

    def _step(self, work: Many[Work], table: int, window: int | None) -> AttentionStep | StateStep:
        if self.groups[table].recurrent:
            return StateStep.of(work, table, self.device)
        return AttentionStep.of(work, table, window, self.block_size, self.device)


def _view(spec: LayerSpec, groups: Many[Group]) -> tuple[int, int | None]:
    """The group whose tables a layer needs, the one that reaches just as far back, and how far it looks."""
    if isinstance(spec, RecurrentSpec):
        return next(place for place, group in enumerate(groups) if group.recurrent), None
    reach = float("inf") if spec.window is None else spec.window
    kept = {
        place: float("inf") if group.window is None else group.window
        for place, group in enumerate(groups)
        if not group.recurrent
    }
    found = [place for place in kept if kept[place] >= reach]
    if not found:
        raise OptionError("The other model looks further back than this one, so that they cannot share a cache.")
    return min(found, key=lambda place: kept[place]), spec.window


def _span(tokens: int, window: int | None, sequences: int, step_tokens: int, block_size: int) -> int:
    if window is None:
        return tokens
    return min(tokens, sequences * (window + 2 * block_size) + step_tokens + block_size)
