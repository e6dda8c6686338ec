"""One layer's memory, by blocks."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from bestiary.generation.engine.packed_memory import Form, form_of
from bestiary.nn.batch import LayerSpec, RecurrentSpec

LINE = 64
"""Bytes of a line of a processor's cache."""


@dataclass(frozen=True)
class LayerBlocks:
    """A layer's memory: keys and values (of a latent no values), or the tensors of its state, by blocks.

    There is one block more than the pool has: what rows of no sequence write goes there.
    """

    memories: tuple[torch.Tensor, ...]
    """Those of the keys, then those of the values; as many of each as their form has columns."""
    rows: int
    """Of each memory that make a block."""
    form: Form | None = None
    """Of keys and values; None: a state."""

    @classmethod
    def empty(
        cls,
        spec: LayerSpec,
        blocks: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        cache_type: str = "auto",
    ) -> LayerBlocks:
        # What was never written must still be a number.
        if isinstance(spec, RecurrentSpec):
            kinds = spec.dtypes or (dtype,) * len(spec.shapes)
            pairs = zip(spec.shapes, kinds, strict=True)
            return cls(tuple(_zeros((blocks + 1, *shape), kind, device) for shape, kind in pairs), 1)
        form = form_of(cache_type, spec, dtype)
        columns = form.columns * (2 if spec.latent is None else 1)
        rows = (blocks + 1) * size
        return cls(tuple(_zeros((rows, width), kind, device) for width, kind in columns), size, form)

    def copy(self, source: int, target: int) -> None:
        source, target = source * self.rows, target * self.rows
        for memory in self.memories:
            memory[target : target + self.rows] = memory[source : source + self.rows]

    def write(self, slots: torch.Tensor, *kept: torch.Tensor) -> None:
        """Put keys, and values unless of a latent, [T, KH, D] each, into slots [T]."""
        assert self.form is not None
        parts = [part for x in kept for part in self.form.encode(x)]
        for memory, part in zip(self.memories, parts, strict=True):
            memory.index_copy_(0, slots, part)

    def read(self, slots: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
        """The keys, and values unless of a latent, of slots [N]: [N, KH, D] each."""
        assert self.form is not None
        parts, count = [memory.index_select(0, slots) for memory in self.memories], self.form.count
        return [self.form.decode(parts[first : first + count], dtype) for first in range(0, len(parts), count)]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on a CPU those of numpy, which are no memory until they are written to."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = prod(shape) * dtype.itemsize
    memory = np.zeros(size + LINE, dtype=np.uint8)
    first = -memory.ctypes.data % LINE  # rows begin where lines of the cache do
    return torch.from_numpy(memory[first : first + size]).view(dtype).view(shape)
