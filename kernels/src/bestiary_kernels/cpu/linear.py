"""Products with weights in panels, and with plain ones, of which several may share one x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bestiary_kernels.cpu.library import Library, packer
from bestiary_kernels.cpu.panels import NUMBERS, Panels

LINEAR, PLAIN_LINEAR = 3, 4
MOST = 4
"""Weights of one call."""

_PLAIN_TYPES = {**NUMBERS, torch.float8_e4m3fn: 3}
_ACTIVATION_BYTES = 48
"""Of 32 columns of a row in int8: 32 values, a scale, and three sums."""

_pack = [packer(f"{8 + 7 * count}q") for count in range(MOST + 1)]
_pack_plain = [packer(f"{8 + 10 * count}q") for count in range(MOST + 1)]


@dataclass(frozen=True)
class PlainWeight:
    """A weight [rows, columns] of float32, bfloat16, float16 or float8_e4m3fn, row by row."""

    data: torch.Tensor
    scales: torch.Tensor | None = None
    """Of float8: float32 [rows / r, columns / c], rounded up, for blocks of r rows and c columns."""
    block: tuple[int, int] = (1, 1)


def multiply(
    library: Library,
    x: torch.Tensor,
    weights: Sequence[Panels],
    biases: Sequence[torch.Tensor | None],
    threads: int,
) -> list[torch.Tensor]:
    """x [T, columns] -> [T, rows] for each of at most 4 weights, in the type of x."""
    ys = [x.new_empty(len(x), weight.rows) for weight in weights]
    arguments, scratch = linear_arguments(x, weights, biases, ys)
    library.call(LINEAR, arguments, threads)
    del scratch
    return ys


def linear_arguments(
    x: torch.Tensor, weights: Sequence[Panels], biases: Sequence[torch.Tensor | None], ys: Sequence[torch.Tensor]
) -> tuple[bytes, torch.Tensor]:
    """What the library is given, and its scratch memory."""
    rows, columns = x.shape
    scratch = torch.empty(rows * (-(-columns // 32)) * _ACTIVATION_BYTES, dtype=torch.uint8)
    number = NUMBERS[x.dtype]
    told = [x.data_ptr(), number, x.stride(0), rows, columns, scratch.data_ptr(), number, len(weights)]
    for weight, bias, y in zip(weights, biases, ys, strict=True):
        told += (
            weight.data.data_ptr(),
            weight.type.number,
            weight.rows,
            weight.group,
            y.data_ptr(),
            y.stride(0),
            0 if bias is None else bias.data_ptr(),
        )
    return _pack[len(weights)](*told), scratch


def multiply_plain(
    library: Library,
    x: torch.Tensor,
    weights: Sequence[PlainWeight],
    biases: Sequence[torch.Tensor | None],
    threads: int,
) -> list[torch.Tensor]:
    """x [T, columns] -> [T, rows] for each of at most 4 plain weights, in the type of x; sums are float32."""
    ys = [x.new_empty(len(x), len(weight.data)) for weight in weights]
    arguments, scratch = plain_arguments(x, weights, biases, ys)
    library.call(PLAIN_LINEAR, arguments, threads)
    del scratch
    return ys


def plain_arguments(
    x: torch.Tensor, weights: Sequence[PlainWeight], biases: Sequence[torch.Tensor | None], ys: Sequence[torch.Tensor]
) -> tuple[bytes, torch.Tensor]:
    """What the library is given, and its scratch memory."""
    rows, columns = x.shape
    scratch = torch.empty(rows * columns, dtype=torch.float32)
    number = NUMBERS[x.dtype]
    told = [x.data_ptr(), number, x.stride(0), rows, columns, scratch.data_ptr(), number, len(weights)]
    for weight, bias, y in zip(weights, biases, ys, strict=True):
        told += (
            weight.data.data_ptr(),
            _PLAIN_TYPES[weight.data.dtype],
            len(weight.data),
            weight.data.stride(0),
            0 if weight.scales is None else weight.scales.data_ptr(),
            *weight.block,
            y.data_ptr(),
            y.stride(0),
            0 if bias is None else bias.data_ptr(),
        )
    return _pack_plain[len(weights)](*told), scratch
