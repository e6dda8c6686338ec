"""HQQ in UQFF: whole numbers of 1, 2, 3, 4 or 8 bits with a scale and a zero for groups along either axis.

The weight [out, in] is one line of numbers, laid as [group, ..] (axis 0, all that mistral.rs runs on a CPU) or
[.., group] (axis 1), and the rows of that are packed with a step: with four bits a byte holds row i above and row
i + half below (`bitpack_type` of mistralrs-quant/src/hqq/mod.rs, after hqq/core/bitpack.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch

from bestiary_quant.checkpoints.bits import pack
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaling import Scaling, along_rows
from bestiary_quant.checkpoints.stored import FLOATS, Stored
from bestiary_quant.uqff.described import dimensions, number
from bestiary_quant.uqff.form import HQQ_PACKINGS

Read = Callable[[str], torch.Tensor]


@dataclass(frozen=True)
class _Layout:
    bits: int
    each: int
    """Codes in an element."""
    axis: int
    size: int
    """Numbers in a group."""
    shape: tuple[int, int]

    @property
    def lines(self) -> int:
        return prod(self.shape) // self.size if self.axis else self.size

    @property
    def width(self) -> int:
        return self.size if self.axis else prod(self.shape) // self.size


def hqq_matrix(stored: Stored, weight: str) -> tuple[int, tuple[int, int], Callable[[Read], CodedMatrix]]:
    """Bits, shape, and how the weight is made.  Raises CheckpointError where its parts do not agree."""
    bits, axis = number(stored, f"{weight}.bits", "U8"), number(stored, f"{weight}.axis", "U8")
    if bits not in HQQ_PACKINGS or axis > 1:
        raise stored.error(f"{weight!r} has {bits} bits along axis {axis}; HQQ has 1, 2, 3, 4 or 8 along 0 or 1.")
    shape = dimensions(stored, f"{weight}.shape")
    if len(shape) != 2:
        raise stored.error(f"{weight!r} has the shape {list(shape)}; mistral.rs has no stacks in HQQ.")
    size = number(stored, f"{weight}.group_size", "U32")
    if not size or prod(shape) % size:
        raise stored.error(f"{weight!r} has groups of {size}, which do not divide its {prod(shape)} numbers.")
    number(stored, f"{weight}.optimization_steps", "U32")
    for flag in ("round_zeros", "channel_wise"):
        number(stored, f"{weight}.{flag}", "U8")
    each, kind = HQQ_PACKINGS[bits]
    layout = _Layout(bits, each, axis, size, (shape[0], shape[1]))
    lines, width = layout.lines, layout.width
    stored.check(weight, (kind,), (-(-lines // each), width))
    for role in ("scales", "zeros"):
        stored.check(f"{weight}.{role}", FLOATS, (lines, 1) if axis else (1, width))
    return bits, layout.shape, lambda read: _matrix(layout, *(read(f"{weight}{end}") for end in _PARTS))


_PARTS = ("", ".scales", ".zeros")


def _matrix(layout: _Layout, data: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> CodedMatrix:
    rows, columns = layout.shape
    scales, zeros = scales.flatten(), zeros.flatten()
    if layout.axis:
        along, run = along_rows(scales, rows, columns, layout.size)
        scaling = Scaling(along, run, zeros=along_rows(zeros, rows, columns, layout.size)[0])
    elif layout.width % columns:
        # A scale serves the numbers at its place modulo the count of all, wherever rows begin and end.
        place = (torch.arange(rows * columns) % layout.width).view(rows, columns)
        scaling = Scaling(scales[place], 1, zeros=zeros[place])
    else:
        band = torch.arange(rows) % (layout.width // columns)
        scaling = Scaling(scales.view(-1, columns), 1, zeros=zeros.view(-1, columns), band=band)
    codes = data.view(rows, columns) if layout.each == 1 else pack(_codes(layout, data), layout.bits)
    return CodedMatrix(Codes(codes, layout.bits, columns), scaling)


def _codes(layout: _Layout, data: torch.Tensor) -> torch.Tensor:
    """The codes [out, in] uint8 of elements [steps, width], without what fills the last step."""
    places = torch.arange(layout.bits * (layout.each - 1), -1, -layout.bits, dtype=data.dtype)
    codes = ((data >> places[:, None, None]) & (1 << layout.bits) - 1).to(torch.uint8)
    return codes.view(-1, layout.width)[: layout.lines].reshape(layout.shape)


def laid(codes: torch.Tensor, bits: int, size: int) -> torch.Tensor:
    """The opposite of `_codes`, for four or eight bits along axis 0: [out, in] uint8 -> elements [steps, width]."""
    lines = codes.reshape(size, -1)
    return lines if bits == 8 else lines[: size // 2] << 4 | lines[size // 2 :]
