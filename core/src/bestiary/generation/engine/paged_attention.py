"""Attention that reads keys and values through block tables."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from bestiary.generation.engine.paged_memory import LayerBlocks
from bestiary.generation.engine.sequence import Work
from bestiary.nn.attend import attend
from bestiary.nn.batch import AttentionSpec
from bestiary.nn.operations import PLAIN, Operations


@dataclass(frozen=True)
class AttentionStep:
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
    lengths: torch.Tensor | None = None
    """[N]: how many of them are real, the first ones."""
    runs: tuple[tuple[tuple[int, int], ...], ...] = ()
    """For each of `prompts` the runs of tokens that see each other both ways, by places in what it sees; empty where no
    prompt has any.  What computes attention and does not know of them leaves such a step to others."""

    @classmethod
    def of(cls, work: Many[Work], index: int, window: int | None, size: int, device: torch.device) -> AttentionStep:
        written: list[np.ndarray] = []
        runs: list[tuple[tuple[int, int], ...]] = []
        prompts: list[tuple[int, int, torch.Tensor]] = []
        rows: list[int] = []
        decoding: list[np.ndarray] = []
        row = 0
        for entry in work:
            seen = slots_seen(entry, index, window, size)
            written.append(seen[len(seen) - entry.count :])
            if entry.count == 1:
                rows.append(row)
                decoding.append(seen)
            else:
                prompts.append((row, entry.count, torch.from_numpy(seen).to(device)))
                first = entry.end - len(seen)
                runs.append(tuple((start - first, end - first) for start, end in entry.runs))
            row += entry.count
        slots = torch.from_numpy(np.concatenate(written)).to(device)
        both_ways = tuple(runs) if any(runs) else ()
        if not rows:
            return cls(slots, tuple(prompts), None, None, None, runs=both_ways)
        lengths = np.array([len(seen) for seen in decoding])
        padded = np.zeros((len(rows), lengths.max()), dtype=np.int64)
        for place, seen in enumerate(decoding):
            padded[place, : len(seen)], padded[place, len(seen) :] = seen, seen[0]  # nobody else's, which may be NaN
        real = None
        if lengths.min() < lengths.max():
            real = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None])[:, None, None].to(device)
        counts = torch.from_numpy(lengths).to(device)
        places = torch.tensor(rows, device=device)
        return cls(slots, tuple(prompts), places, torch.from_numpy(padded).to(device), real, counts, both_ways)


def slots_seen(work: Work, index: int, window: int | None, size: int) -> np.ndarray:
    """The slots of all positions that the work sees in a group, its own at the end."""
    first = 0 if window is None else max(0, work.start - window + 1)
    begin, end = first // size, work.end
    # None, a block left behind, is a TypeError.
    blocks = np.array(work.sequence.tables[index][begin : -(-end // size)], dtype=np.int64)
    return (blocks[:, None] * size + np.arange(size)).ravel()[first - begin * size : end - begin * size]


class PagedLayer:
    """One layer's state in one step (a `bestiary.nn.LayerState`)."""

    def __init__(self, blocks: LayerBlocks, step: AttentionStep, operations: Operations = PLAIN) -> None:
        self.blocks, self.step, self.operations = blocks, step, operations

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor | None,
        spec: AttentionSpec,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        fast = self.operations.attend
        made = None if fast is None else fast(q, k, v, self.blocks, self.step, spec, sinks)
        return attend_blocks(q, k, v, self.blocks, self.step, spec, sinks) if made is None else made


def attend_blocks(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    blocks: LayerBlocks,
    step: AttentionStep,
    spec: AttentionSpec,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """What a `LayerState` does with q, k and v, over blocks: the reference of the operation `attend`.

    Another implementation may return None for what it cannot do, before it has written anything.
    """
    blocks.write(step.slots, *((k,) if v is None else (k, v)))
    if not step.prompts and step.seen is not None:
        return _decode(q, blocks, step.seen, step.mask, spec, sinks)
    made = q.new_empty(*q.shape[:2], spec.value_dim)
    for (row, count, seen), runs in zip(step.prompts, step.runs or ((),) * len(step.prompts), strict=True):
        part = slice(row, row + count)
        keys, values = _gathered(blocks, seen, spec, q.dtype)
        y = attend(q[part].transpose(0, 1), keys.transpose(0, 1), values.transpose(0, 1), spec, sinks, runs)
        made[part] = y.transpose(0, 1)
    if step.rows is not None and step.seen is not None:
        made[step.rows] = _decode(q[step.rows], blocks, step.seen, step.mask, spec, sinks)
    return made


def _gathered(
    blocks: LayerBlocks, seen: torch.Tensor, spec: AttentionSpec, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values [..., S, KH, D] of slots [..., S]; whole rows are copied, at the speed of the memory."""
    shape = (*seen.shape, spec.kv_heads, spec.head_dim)
    keys, *values = (x.view(shape) for x in blocks.read(seen.flatten(), dtype))
    return keys, values[0] if values else keys[..., : spec.latent]


def _decode(
    q: torch.Tensor,
    blocks: LayerBlocks,
    seen: torch.Tensor,
    mask: torch.Tensor | None,
    spec: AttentionSpec,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """One query for each sequence: q [N, H, D] -> [N, H, D]."""
    keys, values = _gathered(blocks, seen, spec, q.dtype)  # [N, S, KH, D]
    # The queries that share a key head stand where several positions would: they see the same keys, and so the keys are
    # read once for all of them.
    grouped = q.view(len(q), spec.kv_heads, -1, spec.head_dim)
    k, v = keys.transpose(1, 2), values.transpose(1, 2)
    if spec.softcap is None and sinks is None:
        y = F.scaled_dot_product_attention(grouped, k, v, mask, scale=spec.scale)
    else:
        y = _attend_by_hand(grouped, k, v, mask, spec, sinks)
    return y.reshape(len(q), spec.heads, spec.value_dim)


def _attend_by_hand(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    spec: AttentionSpec,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """q [N, KH, G, D], k and v [N, KH, S, D] -> [N, KH, G, D], with what the library's attention has no word for."""
    scores = (q @ k.transpose(2, 3)) * spec.scale
    if spec.softcap is not None:
        scores = torch.tanh(scores / spec.softcap) * spec.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        extra = sinks.to(scores.dtype).view(1, spec.kv_heads, -1, 1).expand(len(q), -1, -1, 1)
        scores = torch.cat((scores, extra), -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    return weights[..., : k.shape[2]] @ v
