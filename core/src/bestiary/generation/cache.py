"""Keys and values of sequences in plain buffers that grow, one sequence beside the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bestiary.nn.attend import attend
from bestiary.nn.batch import AttentionSpec, Batch


class LayerCache:
    """One layer's keys and values of one sequence: [KH, capacity, D], doubled when full."""

    def __init__(self) -> None:
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.length = 0

    def extend(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add k and v [KH, T, D]; returns all that is remembered, [KH, S, D]."""
        total = self.length + k.shape[1]
        if self.keys is None or self.values is None or total > self.keys.shape[1]:
            self.keys, self.values = self._grown(self.keys, k, total), self._grown(self.values, v, total)
        self.keys[:, self.length : total] = k
        self.values[:, self.length : total] = v
        self.length = total
        return self.keys[:, :total], self.values[:, :total]

    def _grown(self, old: torch.Tensor | None, new: torch.Tensor, total: int) -> torch.Tensor:
        grown = new.new_empty(new.shape[0], max(64, 2 * total), new.shape[2])
        if old is not None:
            grown[:, : self.length] = old[:, : self.length]
        return grown


class SequenceCache:
    """Everything that one sequence remembers: a LayerCache for each layer."""

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]

    @property
    def length(self) -> int:
        return self.layers[0].length if self.layers else 0


class FlatLayer:
    """One layer's state for the sequences of a step (a `bestiary.nn.LayerState`)."""

    def __init__(self, caches: Sequence[LayerCache], counts: Sequence[int]) -> None:
        self.caches, self.counts = caches, counts

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        spec: AttentionSpec,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        parts = zip(self.caches, *(torch.split(tensor, list(self.counts)) for tensor in (q, k, v)), strict=True)
        made = []
        for cache, new_q, new_k, new_v in parts:
            keys, values = cache.extend(new_k.transpose(0, 1), new_v.transpose(0, 1))
            made.append(attend(new_q.transpose(0, 1), keys, values, spec, sinks).transpose(0, 1))
        return made[0] if len(made) == 1 else torch.cat(made)


def make_batch(
    caches: Sequence[SequenceCache], counts: Sequence[int], device: torch.device | str, *, all_outputs: bool = False
) -> Batch:
    """The batch in which each sequence gets `counts` new tokens.  Logits are wanted for its last one, or for all."""
    positions, lengths, last, total = [], [], [], 0
    for cache, count in zip(caches, counts, strict=True):
        start = cache.length
        positions.append(torch.arange(start, start + count))
        lengths.append(torch.full((count,), start + count))
        total += count
        last.append(total - 1)
    layers = [FlatLayer(states, counts) for states in zip(*(cache.layers for cache in caches), strict=True)]
    return Batch(
        torch.cat(positions).to(device),
        torch.cat(lengths).to(device),
        layers,
        None if all_outputs else torch.tensor(last, device=device),
    )
