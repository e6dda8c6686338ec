"""Weights in a type of 8 bits that holds numbers, float8 or int8, with scales for the whole, rows, groups or blocks.

    X.weight [out, in]      one scale of [], [1], [1, 1]     for all
    or [experts, out, in]                [out] or [out, 1]   for each row
                                         [out / R, in / C]   for each block of R rows and C columns

The product of weight and scale is the number, also where the scale is called `weight_scale_inv` (DeepSeek-V3,
`inference/kernel.py`, weight_dequant).  The rules for shapes are those of transformers (`Fp8Dequantize`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack, shaped
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import FLOAT8, FLOATS, Group, Stored

POWERS = ("F8_E8M0", "U8")
"""Scales that are powers of two, in a byte: 2^(code - 127) (E8M0 of OCP Microscaling Formats 1.0)."""


def scaled_group(
    stored: Stored,
    settings: Settings,
    name: str,
    scale: str,
    *,
    zero: str | None = None,
    inputs: Iterable[str] = (),
    beside: Iterable[str] = (),
    block: tuple[int, int] | None = None,
    divide: float = 1.0,
) -> Group:
    """One weight and its scale, which may be divided by a constant.

    `inputs` are names that a scale of activations may have, `beside` those of tensors that belong to the weight and say
    nothing about it; `block` is what the configuration says of blocks.  Raises CheckpointError.
    """
    kind = stored.dtype(name, *FLOAT8, "I8")
    shape = stored.shape(name, 2, 3)
    stored.dtype(scale, *FLOATS, *POWERS)
    grid = _grid(stored, scale, shape)
    block = _block(stored, settings, name, scale, shape[-2:], grid[-2:], block)
    parts = {"codes": name, "scales": scale}
    if zero is not None and zero in stored:
        stored.check(zero, ("I8", *FLOATS), tuple(stored.checkpoint.shape(scale)))
        parts["zeros"] = zero
    activations = list(stored.present(inputs))
    parts.update(stored.present((*activations, *beside)))
    experts, (rows, columns) = (shape[0] if len(shape) == 3 else 1), shape[-2:]

    def make(read: Callable[[str], torch.Tensor]) -> CodedMatrix | CodedStack:
        scales = read("scales").reshape(-1, grid[-1])
        if scales.dtype == torch.uint8:
            scales = scales.view(torch.float8_e8m0fnu)
        scaling = Scaling(
            scales if divide == 1.0 else scales.float() / divide,
            block[1],
            zeros=read("zeros").reshape(-1, grid[-1]) if "zeros" in parts else None,
            band=_band(experts, rows, block[0], grid),
        )
        codes = Codes(read("codes").reshape(-1, columns), 8, columns)
        return shaped(CodedMatrix(codes, scaling, read(activations[0]) if activations else None), shape)

    return Group(name, "INT8" if kind == "I8" else "FP8", shape, parts, make)


def _grid(stored: Stored, scale: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the scales in as many dimensions as the weight has."""
    given = stored.shape(scale, 0, 1, 2, 3)
    if given in ((), (1,)):
        return (1,) * len(shape)
    if len(given) == 1:
        given = (given[0], *(1,) * (len(shape) - 1))
    if len(given) != len(shape) or (len(shape) == 3 and given[0] not in (1, shape[0])):
        raise stored.error(f"{scale!r} has the shape {list(given)}, and its weight {list(shape)}.")
    return given


def _block(
    stored: Stored,
    settings: Settings,
    name: str,
    scale: str,
    shape: tuple[int, ...],
    grid: tuple[int, ...],
    stated: tuple[int, int] | None,
) -> tuple[int, int]:
    """Rows and columns that share a scale."""
    (rows, columns), (down, across) = shape, grid
    if stated is not None:
        if (down, across) != (-(-rows // stated[0]), -(-columns // stated[1])):
            raise stored.error(
                f"{scale!r} has {down} x {across} scales; {name!r} of {rows} x {columns} numbers has "
                f"{-(-rows // stated[0])} x {-(-columns // stated[1])} blocks of {stated[0]} x {stated[1]}, "
                f"as {settings.where} says."
            )
        return stated
    if rows % down or columns % across:
        raise stored.error(
            f"{scale!r} has {down} x {across} scales, which do not part the {rows} x {columns} numbers of {name!r}.",
            fix=f"where blocks do not fill the weight, {settings.where} has to say how large they are",
        )
    return rows // down, columns // across


def _band(experts: int, rows: int, height: int, grid: tuple[int, ...]) -> torch.Tensor | None:
    """The row of scales for each row of all experts, one below the other; None where each has its own."""
    each = torch.arange(experts) * (grid[-2] if grid[0] == experts else 0)
    band = (each[:, None] + torch.arange(rows) // height).flatten()
    return None if torch.equal(band, torch.arange(experts * rows)) else band
