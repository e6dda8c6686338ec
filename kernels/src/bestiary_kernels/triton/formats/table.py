"""Every format by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from bestiary_kernels.triton.formats import float8, float8_rows, int4, mxfp4, plain, q4_0, q4_k, q5_k, q6_k, q8_0

Numbers = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Format:
    """How weights are held: `length` numbers of a row in `size` elements of the codes."""

    length: int
    size: int
    decode: Any
    """For kernels; see the docstring of `formats`."""
    numbers: Numbers
    """The same in plain torch."""
    span: int
    """Columns that a matrix product decodes at a time: whole blocks, and enough for one `tl.dot`."""
    aligned: int = 1
    """Bytes of the widest words that are read of the codes."""


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "plain": Format(1, 1, plain.decode, plain.numbers, 64),
        "Q4_0": Format(32, 18, q4_0.decode, q4_0.numbers, 64, 2),
        "Q8_0": Format(32, 34, q8_0.decode, q8_0.numbers, 64, 2),
        "MXFP4": Format(32, 17, mxfp4.decode, mxfp4.numbers, 64),
        "Q4_K": Format(256, 144, q4_k.decode, q4_k.numbers, 256, 4),
        "Q5_K": Format(256, 176, q5_k.decode, q5_k.numbers, 256, 4),
        "Q6_K": Format(256, 210, q6_k.decode, q6_k.numbers, 256, 2),
        "int4": Format(2, 1, int4.decode, int4.numbers, 64),
        "float8": Format(1, 1, float8.decode, float8.numbers, 128),
        "float8_rows": Format(1, 1, float8_rows.decode, float8_rows.numbers, 128),
    }
)
