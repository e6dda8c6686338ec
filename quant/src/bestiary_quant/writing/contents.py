"""The bytes of a weight as GGUF stores it: in its blocks, or as plain numbers, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from bestiary.nn.packed import Packed, PackedList
from bestiary_quant.blocks.types import TYPES, BlockType
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack
from bestiary_quant.packed import PANEL, PackedMatrix, PackedStack

PLAIN = {kind.name: kind for kind in TYPES.values() if kind.name in ("F32", "F16", "BF16")}
_HALF = 65504.0
"""The largest 16-bit float."""


@dataclass(frozen=True)
class Content:
    """A weight that is ready to be written."""

    kind: BlockType
    shape: tuple[int, ...]
    chunks: Iterator[memoryview]


def block_type(weight: torch.Tensor | Packed) -> BlockType | None:
    """The type of GGUF whose blocks a weight has already; None where it must be written as plain numbers."""
    if isinstance(weight, PackedMatrix | PackedStack):
        return weight.kind if weight.kind.code >= 0 else None
    if isinstance(weight, PackedList):
        kinds = {block_type(part) for part in weight.parts}
        return kinds.pop() if len(kinds) == 1 else None
    return None


def blocks(weight: torch.Tensor | Packed, kind: BlockType) -> Content:
    """A weight whose `block_type` is `kind`."""
    return Content(kind, tuple(weight.shape), _blocks(weight))


def numbers(weight: torch.Tensor | Packed, kind: BlockType) -> Content:
    """A weight as plain numbers of a type; in float32 where 16-bit floats do not reach so far."""
    if kind.name == "F16" and any(float(panel.abs().max()) > _HALF for panel in _panels(weight)):
        kind = PLAIN["F32"]
    return Content(kind, tuple(weight.shape), _converted(weight, getattr(torch, kind.dtype or "")))


def _blocks(weight: torch.Tensor | Packed) -> Iterator[memoryview]:
    if isinstance(weight, PackedList):
        for part in weight.parts:
            yield from _blocks(part)
    elif isinstance(weight, PackedMatrix | PackedStack):
        for data in weight.data.unbind() if weight.data.ndim == 3 else (weight.data,):
            yield as_bytes(data)


def _converted(weight: torch.Tensor | Packed, dtype: torch.dtype) -> Iterator[memoryview]:
    for panel in _panels(weight):
        yield as_bytes(panel.to(dtype))


def _panels(weight: torch.Tensor | Packed) -> Iterator[torch.Tensor]:
    """Some rows at a time, so that no second copy of a large weight is made."""
    if isinstance(weight, torch.Tensor):
        if not weight.ndim or not weight.numel():
            yield weight.reshape(1) if weight.numel() else weight.new_zeros(1)
            return
        rows = weight.reshape(-1, weight.shape[-1])
        step = max(1, PANEL // rows.shape[1])
        for start in range(0, len(rows), step):
            yield rows[start : start + step]
    elif isinstance(weight, PackedList):
        for part in weight.parts:
            yield from _panels(part)
    elif isinstance(weight, PackedStack | CodedStack):
        for number in range(len(weight)):
            yield from _panels(weight[number])
    elif isinstance(weight, PackedMatrix | CodedMatrix):
        for _, panel in weight._panels():
            yield panel
    else:
        yield from _panels(weight.dequantize())


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a tensor in its order."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
