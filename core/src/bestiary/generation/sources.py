"""What sequences look at and do not extend: an encoder's keys and values, in blocks of the engine's cache."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Protocol

import torch
import torch.nn.functional as F

from bestiary.generation.engine.paged_attention import AttentionStep, PagedLayer
from bestiary.generation.engine.paged_memory import LayerBlocks
from bestiary.generation.rooms import BLOCK, Fitted, make_rooms
from bestiary.nn.batch import AttentionSpec
from bestiary.nn.operations import Operations

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values [L, KH, D]."""


class SourceModel(Fitted, Protocol):
    """What looks at them."""

    @property
    def source_specs(self) -> Many[AttentionSpec]:
        """How each of its layers does so."""


class Sources:
    """Several of them, each of a length of its own."""

    def __init__(self, model: SourceModel, lengths: Many[int]) -> None:
        self._operations, self._device = model.operations, model.device
        self._cache, rooms = make_rooms(model, model.source_specs, lengths)
        begins = [room.start * BLOCK for room in rooms]
        self._slots = [
            torch.arange(begin, begin + length, device=self._device)
            for begin, length in zip(begins, lengths, strict=True)
        ]

    def fill(self, source: int, layers: Many[Pair]) -> None:
        """What one of them is, for each layer; it may become another later."""
        for blocks, pair in zip(self._cache.layers, layers, strict=True):
            blocks.write(self._slots[source], *pair)

    def states(self, sources: Many[int], counts: Many[int]) -> list[SourceLayer]:
        """Each layer's view of a step in which so many rows look at one source, so many after them at the next."""
        slots = [self._slots[source] for source in sources]
        step = None
        if all(count == 1 for count in counts):
            # A row that decodes attends to the blocks where they lie, and has nothing to add to them.
            lengths = torch.tensor([len(each) for each in slots], device=self._device)
            seen = torch.nn.utils.rnn.pad_sequence(slots, batch_first=True, padding_value=0)
            seen = torch.where(torch.arange(seen.shape[1], device=self._device) < lengths[:, None], seen, seen[:, :1])
            mask = None
            if int(lengths.min()) < seen.shape[1]:
                mask = (torch.arange(seen.shape[1], device=self._device) < lengths[:, None])[:, None, None]
            rows = torch.arange(len(slots), device=self._device)
            step = AttentionStep(rows[:0], (), rows, seen, mask, lengths)
        return [SourceLayer(blocks, slots, list(counts), step, self._operations) for blocks in self._cache.layers]


class SourceLayer:
    """One layer's view of the sources of a step."""

    def __init__(
        self,
        blocks: LayerBlocks,
        slots: Many[torch.Tensor],
        counts: list[int],
        step: AttentionStep | None,
        operations: Operations,
    ) -> None:
        self._blocks, self._slots, self._counts = blocks, slots, counts
        self._decoding = None if step is None else PagedLayer(blocks, step, operations)

    def attend(self, q: torch.Tensor, spec: AttentionSpec) -> torch.Tensor:
        """Each row of q [T, H, D] to all of its source: [T, H, D]."""
        if self._decoding is not None:
            nothing = q.new_empty(0, spec.kv_heads, spec.head_dim)
            return self._decoding.attend(q, nothing, nothing, spec)
        made = []
        for rows, slots in zip(torch.split(q, self._counts), self._slots, strict=True):
            keys, values = (
                each.view(len(slots), spec.kv_heads, spec.head_dim).transpose(0, 1)
                for each in self._blocks.read(slots, q.dtype)
            )
            y = F.scaled_dot_product_attention(
                rows.transpose(0, 1)[None], keys[None], values[None], scale=spec.scale, enable_gqa=True
            )
            made.append(y[0].transpose(0, 1))
        return torch.cat(made)
