"""Keys and values in blocks: the memory of a cache group's layers, and attention that reads through block tables."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from bestiary.generation.engine.scheduler import Group
from bestiary.generation.engine.sequence import Work
from bestiary.nn.attend import attend
from bestiary.nn.batch import AttentionSpec


class PagedCache:
    """The blocks of every layer: keys and values [blocks * block size, KH * D] each.

    Layers with the same window share a group, and so its block tables.
    """

    def __init__(
        self,
        specs: Many[AttentionSpec],
        tokens: int,
        block_size: int,
        *,
        sequences: int,
        step_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Room for `tokens` of all sequences together; a window's layers need no more than its span for each."""
        self.block_size = block_size
        windows = sorted({spec.window for spec in specs}, key=lambda window: (window is not None, window or 0))
        self.groups = tuple(
            Group(-(-_span(tokens, window, sequences, step_tokens, block_size) // block_size), window)
            for window in windows
        )
        self.group_of = tuple(windows.index(spec.window) for spec in specs)
        self.layers = tuple(
            _LayerBlocks.empty(spec, self.groups[group].blocks * block_size, dtype, device)
            for spec, group in zip(specs, self.group_of, strict=True)
        )
        self.device = device

    @property
    def nbytes(self) -> int:
        """What the cache can come to hold; on a CPU, memory that was never written is not resident."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    def copy(self, copies: Many[tuple[int, int, int]]) -> None:
        """Copy blocks within groups: (group, from, to)."""
        for group, source, target in copies:
            for layer, own in zip(self.layers, self.group_of, strict=True):
                if own == group:
                    layer.copy(source * self.block_size, target * self.block_size, self.block_size)

    def states(self, work: Many[Work]) -> list[PagedLayer]:
        """Each layer's view of a step."""
        steps = [
            _GroupStep.of(work, index, group, self.block_size, self.device) for index, group in enumerate(self.groups)
        ]
        return [PagedLayer(layer, steps[group]) for layer, group in zip(self.layers, self.group_of, strict=True)]


def _span(tokens: int, window: int | None, sequences: int, step_tokens: int, block_size: int) -> int:
    if window is None:
        return tokens
    return min(tokens, sequences * (window + 2 * block_size) + step_tokens + block_size)


@dataclass(frozen=True)
class _LayerBlocks:
    keys: torch.Tensor
    values: torch.Tensor

    @classmethod
    def empty(cls, spec: AttentionSpec, slots: int, dtype: torch.dtype, device: torch.device) -> _LayerBlocks:
        shape = (slots, spec.kv_heads * spec.head_dim)
        return cls(torch.empty(shape, dtype=dtype, device=device), torch.empty(shape, dtype=dtype, device=device))

    def copy(self, source: int, target: int, count: int) -> None:
        for memory in (self.keys, self.values):
            memory[target : target + count] = memory[source : source + count]


@dataclass(frozen=True)
class _GroupStep:
    """What the layers of a group share in one step."""

    slots: torch.Tensor
    """[T]: where each new token's key and value go."""
    prompts: tuple[tuple[int, int, torch.Tensor], ...]
    """Work of more than one token: first row, count, and the slots [S] that it sees."""
    rows: torch.Tensor | None
    """[N]: the rows that decode, one token each."""
    seen: torch.Tensor | None
    """[N, S]: the slots that each sees, padded with any slot."""
    mask: torch.Tensor | None
    """[N, 1, 1, S] of bool: which of them are real; None where all are."""

    @classmethod
    def of(cls, work: Many[Work], index: int, group: Group, size: int, device: torch.device) -> _GroupStep:
        written: list[np.ndarray] = []
        prompts: list[tuple[int, int, torch.Tensor]] = []
        rows: list[int] = []
        decoding: list[np.ndarray] = []
        row = 0
        for entry in work:
            first = 0 if group.window is None else max(0, entry.start - group.window + 1)
            seen = _slots(entry.sequence.tables[index], first, entry.start + entry.count, size)
            written.append(seen[len(seen) - entry.count :])
            if entry.count == 1:
                rows.append(row)
                decoding.append(seen)
            else:
                prompts.append((row, entry.count, torch.from_numpy(seen).to(device)))
            row += entry.count
        slots = torch.from_numpy(np.concatenate(written)).to(device)
        if not rows:
            return cls(slots, tuple(prompts), None, None, None)
        lengths = np.array([len(seen) for seen in decoding])
        padded = np.zeros((len(rows), lengths.max()), dtype=np.int64)
        for place, seen in enumerate(decoding):
            padded[place, : len(seen)] = seen
        real = None
        if lengths.min() < lengths.max():
            real = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None])[:, None, None].to(device)
        return cls(slots, tuple(prompts), torch.tensor(rows, device=device), torch.from_numpy(padded).to(device), real)


def _slots(table: list[int | None], first: int, end: int, size: int) -> np.ndarray:
    """The slots of the positions from `first` to before `end`."""
    begin = first // size
    blocks = np.array(table[begin : -(-end // size)], dtype=np.int64)  # None, a block left behind, is a TypeError
    return (blocks[:, None] * size + np.arange(size)).ravel()[first - begin * size : end - begin * size]


class PagedLayer:
    """One layer's state in one step (a `bestiary.nn.LayerState`)."""

    def __init__(self, blocks: _LayerBlocks, step: _GroupStep) -> None:
        self.blocks, self.step = blocks, step

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        spec: AttentionSpec,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        step = self.step
        self.blocks.keys.index_copy_(0, step.slots, k.reshape(len(k), -1))
        self.blocks.values.index_copy_(0, step.slots, v.reshape(len(v), -1))
        if not step.prompts and step.seen is not None:
            return self._decode(q, step.seen, step.mask, spec, sinks)
        made = torch.empty_like(q)
        for row, count, seen in step.prompts:
            part = slice(row, row + count)
            keys, values = self._gathered(seen, spec)
            y = attend(q[part].transpose(0, 1), keys.transpose(0, 1), values.transpose(0, 1), spec, sinks)
            made[part] = y.transpose(0, 1)
        if step.rows is not None and step.seen is not None:
            made[step.rows] = self._decode(q[step.rows], step.seen, step.mask, spec, sinks)
        return made

    def _gathered(self, seen: torch.Tensor, spec: AttentionSpec) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [..., S, KH, D] of slots [..., S]; whole rows are copied, at the speed of the memory."""
        shape = (*seen.shape, spec.kv_heads, spec.head_dim)
        flat = seen.flatten()
        keys, values = (memory.index_select(0, flat).view(shape) for memory in (self.blocks.keys, self.blocks.values))
        return keys, values

    def _decode(
        self,
        q: torch.Tensor,
        seen: torch.Tensor,
        mask: torch.Tensor | None,
        spec: AttentionSpec,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """One query for each sequence: q [N, H, D] -> [N, H, D]."""
        keys, values = self._gathered(seen, spec)  # [N, S, KH, D]
        if spec.softcap is None and sinks is None:
            # The queries that share a key head stand where several positions would: they see the same keys, and so
            # the keys are read once for all of them.
            grouped = q.view(len(q), spec.kv_heads, -1, spec.head_dim)
            k, v = keys.transpose(1, 2), values.transpose(1, 2)
            return F.scaled_dot_product_attention(grouped, k, v, mask, scale=spec.scale).view(q.shape)
        made = torch.empty_like(q)
        for row in range(len(q)):
            k, v = keys[row], values[row]
            if mask is not None:
                k, v = k[mask[row, 0, 0]], v[mask[row, 0, 0]]
            made[row] = attend(q[row, :, None], k.transpose(0, 1), v.transpose(0, 1), spec, sinks)[:, 0]
        return made
