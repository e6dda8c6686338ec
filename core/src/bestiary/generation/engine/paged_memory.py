"""One layer's memory, by blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bestiary.nn.batch import LayerSpec, RecurrentSpec


@dataclass(frozen=True)
class LayerBlocks:
    """A layer's memory: keys and values (of a latent no values), or the tensors of its state, by blocks.

    There is one block more than the pool has: what rows of no sequence write goes there.
    """

    memories: tuple[torch.Tensor, ...]
    rows: int
    """Of each memory that make a block."""

    @classmethod
    def empty(cls, spec: LayerSpec, blocks: int, size: int, dtype: torch.dtype, device: torch.device) -> LayerBlocks:
        # Zeros cost nothing on a CPU until they are written to; what was never written must still be a number.
        if isinstance(spec, RecurrentSpec):
            kinds = spec.dtypes or (dtype,) * len(spec.shapes)
            pairs = zip(spec.shapes, kinds, strict=True)
            return cls(tuple(torch.zeros((blocks + 1, *shape), dtype=kind, device=device) for shape, kind in pairs), 1)
        shape = ((blocks + 1) * size, spec.kv_heads * spec.head_dim)
        count = 2 if spec.latent is None else 1
        return cls(tuple(torch.zeros(shape, dtype=dtype, device=device) for _ in range(count)), size)

    def copy(self, source: int, target: int) -> None:
        source, target = source * self.rows, target * self.rows
        for memory in self.memories:
            memory[target : target + self.rows] = memory[source : source + self.rows]
