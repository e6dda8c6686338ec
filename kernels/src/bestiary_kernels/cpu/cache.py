"""Memories of keys and values, written by slots."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bestiary_kernels.cpu.library import Library, packer
from bestiary_kernels.cpu.panels import NUMBERS

CACHE_WRITE = 10

_INT8_GROUPS = 3
_pack = packer("18q")
_NO_MEMORY = (0, 0, 0, 0)


@dataclass(frozen=True)
class Memory:
    """The keys or the values of all slots, as `bestiary.generation.engine.packed_memory` lays them."""

    data: torch.Tensor
    """[slots, heads * dim] of the model's type; or int8 [slots, heads * groups * size]."""
    scales: torch.Tensor | None = None
    """Of int8: bfloat16 [slots, heads * groups]."""

    @property
    def form(self) -> int:
        """As the library counts them."""
        return NUMBERS[self.data.dtype] if self.scales is None else _INT8_GROUPS

    @property
    def told(self) -> tuple[int, int, int, int]:
        """As the library is given it."""
        if self.scales is None:
            return self.data.data_ptr(), self.data.stride(0), 0, 0
        return self.data.data_ptr(), self.data.stride(0), self.scales.data_ptr(), self.scales.stride(0)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [self.data] if self.scales is None else [self.data, self.scales]


def write(
    library: Library,
    keys: torch.Tensor,
    values: torch.Tensor | None,
    slots: torch.Tensor,
    key_memory: Memory,
    value_memory: Memory | None,
    threads: int,
) -> None:
    """Put keys and values [T, KH, D], heads beside each other, into slots [T] int64; a latent has no values."""
    arguments, kept = write_arguments(keys, values, slots, key_memory, value_memory)
    library.call(CACHE_WRITE, arguments, threads)
    del kept


def write_arguments(
    keys: torch.Tensor,
    values: torch.Tensor | None,
    slots: torch.Tensor,
    key_memory: Memory,
    value_memory: Memory | None,
) -> tuple[bytes, list[torch.Tensor]]:
    """What the library is given, and what it has the addresses of."""
    tokens, heads, dim = keys.shape
    assert slots.dtype == torch.int64 and slots.is_contiguous() and len(slots) == tokens
    for x in (keys, values):
        assert x is None or (x.dtype == keys.dtype and x.stride(2) == 1 and (heads == 1 or x.stride(1) == dim))
    kept = [keys, slots, *key_memory.tensors]
    if values is not None and value_memory is not None:
        kept += (values, *value_memory.tensors)
    arguments = _pack(
        keys.data_ptr(),
        0 if values is None else values.data_ptr(),
        NUMBERS[keys.dtype],
        keys.stride(0),
        0 if values is None else values.stride(0),
        tokens,
        heads,
        dim,
        key_memory.form,
        slots.data_ptr(),
        *key_memory.told,
        *(_NO_MEMORY if values is None or value_memory is None else value_memory.told),
    )
    return arguments, kept
