"""From the bytes of any type to numbers."""

from __future__ import annotations

import torch

from bestiary.records import resolve
from bestiary_quant.blocks.types import BlockType


def dequantize(data: torch.Tensor, kind: BlockType) -> torch.Tensor:
    """Rows of bytes [..., row bytes] uint8 -> numbers [..., columns] float32, bit for bit those of ggml's C reference.

    The bytes may be any slice of rows; they are read, never written, on whatever device they lie.
    """
    if kind.dtype is not None:
        return data.contiguous().view(getattr(torch, kind.dtype)).float()
    shape = (*data.shape[:-1], data.shape[-1] // kind.nbytes * kind.length)
    if not data.numel():
        return data.new_empty(shape, dtype=torch.float32)
    values: torch.Tensor = resolve(kind.decode or "")(data.reshape(-1, kind.nbytes))
    return values.view(shape)
