"""Weights held in fewer bits, and what the core does with them whoever packed them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeGuard, runtime_checkable

import torch

_OFFSET = 1 << 40
"""Added to row numbers, so that no arithmetic on them leads back to a row."""


class PackedWeight(Protocol):
    """A weight [out, in] that knows how to multiply."""

    shape: tuple[int, int]
    nbytes: int

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, in] -> [T, out], in the type of x."""

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The weight [out, in] as plain numbers."""

    def rows(self, index: slice | torch.Tensor) -> PackedWeight:
        """Some rows, in a new order or repeated, packed as they are."""

    def to(self, device: torch.device | str) -> PackedWeight:
        """The same on another device."""


class PackedStack(Protocol):
    """Weights of one shape, the experts of a layer: [experts, out, in]."""

    shape: tuple[int, int, int]
    nbytes: int

    def __getitem__(self, expert: int) -> PackedWeight:
        """One of them."""

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """All of them [experts, out, in] as plain numbers."""

    def to(self, device: torch.device | str) -> PackedStack:
        """The same on another device."""


Packed = PackedWeight | PackedStack


@dataclass(frozen=True)
class PackedForm:
    """What a packed weight, or a stack of them, is made of: for back ends that lay it out in their own way.

    By type the tensors are, of a stack with one more dimension before the others,

        a type of GGUF, as "Q4_K"   blocks [out, row bytes] uint8, as files have them
        INT8                        codes [out, in] int8, scales [out] float32
        INT4                        codes [out, in / 2] uint8, of which byte i has columns 2i (its low half) and 2i + 1;
                                    scales and addends [out, G] float32: a code times its scale, and its addend
        FLOAT8                      codes [out, in] float8_e4m3fn, scales [out, G] float32
    """

    type: str
    tensors: Mapping[str, torch.Tensor]
    order: torch.Tensor | None = None
    """Which rows of the tensors [out] int64 are those of the weight; None: all, as they are.  Never of a stack."""

    def ordered(self) -> PackedForm:
        """The same with tensors of the weight's own rows."""
        if self.order is None:
            return self
        return PackedForm(self.type, {name: part.index_select(0, self.order) for name, part in self.tensors.items()})


@runtime_checkable
class Formed(Protocol):
    """A packed weight that can tell its form."""

    def form(self) -> PackedForm | None:
        """None where it is of no type that `PackedForm` names."""


def is_weight(packed: Packed | None) -> TypeGuard[PackedWeight]:
    """Whether it is one weight, and not a stack of them."""
    return packed is not None and len(packed.shape) == 2


class PackedList:
    """Packed weights of one shape beside each other."""

    def __init__(self, parts: Sequence[PackedWeight]) -> None:
        self.parts = tuple(parts)
        self.shape = (len(parts), *parts[0].shape)
        self.nbytes = sum(part.nbytes for part in parts)

    def __getitem__(self, expert: int) -> PackedWeight:
        return self.parts[expert]

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.stack([part.dequantize(dtype) for part in self.parts])

    def to(self, device: torch.device | str) -> Self:
        return type(self)([part.to(device) for part in self.parts])


def moved(packed: PackedWeight, change: Callable[[torch.Tensor], torch.Tensor]) -> PackedWeight | None:
    """The rows as `change`, a function of a tensor [out, any], moves them; None if it does anything else to them.

    The function is applied to the numbers of the rows, and not to their contents: so the rules `rows` and `split` of a
    weight map hold on packed weights, and one that scales, as it also may, is noticed and needs the plain numbers.
    """
    count = packed.shape[0]
    numbers = torch.arange(2 * count).view(count, 2) + _OFFSET
    try:
        order = change(numbers)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None
    if order.dtype != torch.int64 or order.ndim != 2 or order.shape[1] != 2 or not len(order):
        return None
    first = order[:, 0] - _OFFSET
    whole = (first >= 0) & (first < 2 * count) & (first % 2 == 0) & (order[:, 1] - _OFFSET == first + 1)
    if not bool(whole.all()):
        return None
    index = first // 2
    start = int(index[0])
    if torch.equal(index, torch.arange(start, start + len(index))):
        return packed.rows(slice(start, start + len(index)))
    return packed.rows(index)
