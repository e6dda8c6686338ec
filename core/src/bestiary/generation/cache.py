"""Keys and values of sequences in plain buffers that grow, one sequence beside the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bestiary.nn.attend import attend
from bestiary.nn.batch import AttentionSpec, Batch, RecurrentSpec


class LayerCache:
    """What one layer remembers of one sequence: keys and values [KH, capacity, D], doubled when full, or a state."""

    def __init__(self) -> None:
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.state: tuple[torch.Tensor, ...] | None = None
        self.length = 0

    def extend(self, k: torch.Tensor, v: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Add k and v [KH, T, D]; returns all that is remembered, [KH, S, D]."""
        total = self.length + k.shape[1]
        self.keys = self._with(self.keys, k, total)
        self.values = None if v is None else self._with(self.values, v, total)
        self.length = total
        return self.keys[:, :total], None if self.values is None else self.values[:, :total]

    def _with(self, old: torch.Tensor | None, new: torch.Tensor, total: int) -> torch.Tensor:
        if old is None or total > old.shape[1]:
            grown = new.new_empty(new.shape[0], max(64, 2 * total), new.shape[2])
            if old is not None:
                grown[:, : self.length] = old[:, : self.length]
            old = grown
        old[:, self.length : total] = new
        return old


class SequenceCache:
    """Everything that one sequence remembers: a LayerCache for each layer."""

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]

    @property
    def length(self) -> int:
        return self.layers[0].length if self.layers else 0


class FlatLayer:
    """One layer's state for the sequences of a step (a `bestiary.nn.LayerState`, or a `RecurrentState`)."""

    def __init__(
        self,
        caches: Sequence[LayerCache],
        counts: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        runs: Sequence[tuple[int, int]] = (),
    ) -> None:
        """`dtype` is that of states that say none, `runs` those of tokens that see each other both ways."""
        self.caches, self.counts, self.dtype, self.device, self.runs = caches, counts, dtype, device, runs

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor | None,
        spec: AttentionSpec,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        made, start = [], 0
        for cache, count in zip(self.caches, self.counts, strict=True):
            part = slice(start, start + count)
            start += count
            keys, values = cache.extend(k[part].transpose(0, 1), None if v is None else v[part].transpose(0, 1))
            made.append(attend(q[part].transpose(0, 1), keys, values, spec, sinks, self.runs).transpose(0, 1))
        return made[0] if len(made) == 1 else torch.cat(made)

    def load(self, spec: RecurrentSpec) -> tuple[torch.Tensor, ...]:
        if all(cache.state is None for cache in self.caches):
            kinds = spec.dtypes or (self.dtype,) * len(spec.shapes)
            return tuple(
                torch.zeros((len(self.caches), *shape), dtype=kind, device=self.device)
                for shape, kind in zip(spec.shapes, kinds, strict=True)
            )
        states = next(cache.state for cache in self.caches if cache.state is not None)
        empty = tuple(torch.zeros_like(tensor) for tensor in states)
        parts = (cache.state or empty for cache in self.caches)
        return tuple(torch.stack(tensors) for tensors in zip(*parts, strict=True))

    def store(self, states: Sequence[torch.Tensor]) -> None:
        for place, (cache, count) in enumerate(zip(self.caches, self.counts, strict=True)):
            cache.state = tuple(tensor[place].clone() for tensor in states)
            cache.length += count


def make_batch(
    caches: Sequence[SequenceCache],
    counts: Sequence[int],
    device: torch.device | str,
    *,
    all_outputs: bool = False,
    dtype: torch.dtype = torch.float32,
    runs: Sequence[tuple[int, int]] = (),
) -> Batch:
    """The batch in which each sequence gets `counts` new tokens.  Logits are wanted for its last one, or for all.

    `runs` are those of tokens that see each other both ways, in a batch of one sequence.
    """
    positions, lengths, last, total = [], [], [], 0
    for cache, count in zip(caches, counts, strict=True):
        start = cache.length
        positions.append(torch.arange(start, start + count))
        lengths.append(torch.full((count,), start + count))
        total += count
        last.append(total - 1)
    layers = [
        FlatLayer(states, counts, dtype, device, runs)
        for states in zip(*(cache.layers for cache in caches), strict=True)
    ]
    return Batch(
        torch.cat(positions).to(device),
        torch.cat(lengths).to(device),
        layers,
        None if all_outputs else torch.tensor(last, device=device),
    )
