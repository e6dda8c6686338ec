"""Weights in floats of 4 or 6 bits with a scale for each group of columns: MXFP4, NVFP4, MXFP6.

    codes   [.., out, bytes] uint8, the first number in the lowest bits
    scales  [.., out, in / 32] powers of two in a byte (MX), or [.., out, in / 16] float8 e4m3 (NVFP4), which another
            scale for the whole multiplies or divides

Sign, two bits of exponent and one of mantissa, or three of mantissa (OCP Microscaling Formats 1.0; NVIDIA, NVFP4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

import torch

from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack, shaped
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaled import POWERS
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.checkpoints.stored import Group, Stored

_HALF = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1 = (*_HALF, *(-number for number in _HALF))
_HALF_OF_6 = tuple(m / 8 for m in range(8)) + tuple((1 + m / 8) * 2.0**e for e in range(3) for m in range(8))
E2M3 = (*_HALF_OF_6, *(-number for number in _HALF_OF_6))
RUNS = {"F8_E4M3": 16, **dict.fromkeys(POWERS, 32)}


def float4_group(
    stored: Stored,
    plain: str,
    name: str,
    scale: str,
    *,
    factor: str | None = None,
    divides: bool = False,
    inputs: Iterable[str] = (),
    beside: Iterable[str] = (),
) -> Group:
    """The weight `plain` of codes and scales; `factor` is the scale of the scales, which `divides` or multiplies them.

    Codes of one dimension more than scales are in blocks, as gpt-oss has them; `inputs` and `beside` are as in
    `scaled_group`.  Raises CheckpointError.
    """
    kind = stored.dtype(scale, *RUNS)
    stored.dtype(name, "U8")
    counts = stored.shape(scale, 2, 3)
    given = stored.shape(name, len(counts), len(counts) + 1)
    if len(given) > len(counts):
        given = (*given[:-2], given[-2] * given[-1])
    columns = counts[-1] * RUNS[kind]
    bits = next((bits for bits in (4, 6) if given[-1] * 8 == columns * bits), 0)
    if given[:-1] != counts[:-1] or not bits:
        raise stored.error(
            f"{name!r} of the shape {list(stored.checkpoint.shape(name))} and {scale!r} of {list(counts)}, each of the "
            f"type {kind} and for {RUNS[kind]} numbers, do not agree."
        )
    parts = {"codes": name, "scales": scale}
    if factor is not None:
        stored.dtype(factor, "F32")
        if prod(stored.shape(factor, 0, 1)) not in (1, counts[0] if len(counts) == 3 else 1):
            raise stored.error(f"{factor!r} has the shape {list(stored.checkpoint.shape(factor))}; one number is due.")
        parts["factor"] = factor
    activations = list(stored.present(inputs))
    parts.update(stored.present((*activations, *beside)))
    shape = (*counts[:-1], columns)

    def make(read: Callable[[str], torch.Tensor]) -> CodedMatrix | CodedStack:
        scales = read("scales").reshape(-1, counts[-1])
        if scales.dtype == torch.uint8:
            scales = scales.view(torch.float8_e8m0fnu)
        scaling = Scaling(scales, RUNS[kind], factor=_factor(read, len(scales), divides) if "factor" in parts else None)
        codes = Codes(read("codes").reshape(-1, given[-1]), bits, columns, E2M1 if bits == 4 else E2M3)
        return shaped(CodedMatrix(codes, scaling, read(activations[0]) if activations else None), shape)

    label = "NVFP4" if kind == "F8_E4M3" else f"MXFP{bits}"
    return Group(plain, label, shape, parts, make)


def _factor(read: Callable[[str], torch.Tensor], rows: int, divides: bool) -> torch.Tensor:
    factor = read("factor").float().flatten()
    factor = factor.reciprocal() if divides else factor
    return factor[0] if len(factor) == 1 else factor.repeat_interleave(rows // len(factor))[:, None]
