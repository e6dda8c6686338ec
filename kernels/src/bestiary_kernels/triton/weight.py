"""A weight as the kernels take it: the bytes of its file, and what scales them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bestiary_kernels.triton.devices import TYPES
from bestiary_kernels.triton.formats.table import FORMATS, Format

_CODES: Mapping[str, tuple[torch.dtype, ...]] = {
    "plain": TYPES,
    "float8": (torch.uint8, torch.float8_e4m3fn),
    "float8_rows": (torch.uint8, torch.float8_e4m3fn),
}
"""Of other formats uint8."""
_GROUPED = ("int4", "float8_rows")
"""Whose scales are for each row and group of columns."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight [N, K], or a stack of them [E, N, K], in one of the FORMATS.

    Raises ValueError for an unknown format, and for parts that do not fit together or are not contiguous.
    """

    format: str
    codes: torch.Tensor
    """[..., N, row elements]: of GGUF's types the bytes of the file, uint8; of "plain" the numbers themselves."""
    scales: torch.Tensor | None = None
    """Of "int4" and "float8_rows" [..., N, G], of "float8" [..., ceil(N / 128), ceil(K / 128)]."""
    addends: torch.Tensor | None = None
    """Of "int4", like the scales."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f'The format "{self.format}" is unknown; known are {", ".join(FORMATS)}.')
        if self.codes.ndim not in (2, 3):
            raise ValueError(f"Codes are [N, row] or [E, N, row], and these are {list(self.codes.shape)}.")
        kind = self.kind
        if self.codes.shape[-1] % kind.size or not self.codes.numel():
            raise ValueError(f"A row of {self.format} has blocks of {kind.size}, and this has {self.codes.shape[-1]}.")
        due = _CODES.get(self.format, (torch.uint8,))
        if self.codes.dtype not in due:
            raise ValueError(f"Codes of {self.format} are {due[0]}, and these are {self.codes.dtype}.")
        for part in (self.codes, self.scales, self.addends):
            if part is not None and not part.is_contiguous():
                raise ValueError("The parts of a weight must be contiguous.")
        if self.codes.data_ptr() % kind.aligned:
            raise ValueError(f"The codes of {self.format} must begin at a multiple of {kind.aligned} bytes.")
        self._check_scales()

    def _check_scales(self) -> None:
        *stack, rows, columns = self.shape
        if self.format == "float8":
            tiles = (*stack, -(-rows // 128), -(-columns // 128))
            if self.scales is None or self.scales.shape != tiles:
                raise ValueError(f"Scales {list(tiles)} are due, one for each 128 rows and columns.")
        if self.format == "int4" and (
            self.scales is None or self.addends is None or self.scales.shape != self.addends.shape
        ):
            raise ValueError("Scales and addends of the same shape are due.")
        if self.format in _GROUPED:
            shape = () if self.scales is None else tuple(self.scales.shape)
            if shape[:-1] != (*stack, rows) or columns % shape[-1] or (shape[-1] > 1 and columns // shape[-1] % 32):
                raise ValueError(f"Scales for each row and group of columns are due, and these are {list(shape)}.")

    @property
    def kind(self) -> Format:
        return FORMATS[self.format]

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., N, K] of the numbers."""
        return (*self.codes.shape[:-1], self.codes.shape[-1] // self.kind.size * self.kind.length)

    @property
    def group(self) -> int:
        """Columns that share a scale, where the scales say so."""
        return self.shape[-1] // self.scales.shape[-1] if self.format in _GROUPED and self.scales is not None else 1

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.codes, self.scales, self.addends) if part is not None)

    def pointers(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes, scales and addends for a kernel, which reads none that the format does not have."""
        codes = self.codes.view(torch.uint8) if self.codes.dtype == torch.float8_e4m3fn else self.codes
        scales = codes if self.scales is None else self.scales
        return codes, scales, scales if self.addends is None else self.addends

    def strides(self) -> tuple[int, int, int]:
        """How far from one weight of a stack to the next, in elements of codes, scales and addends."""
        codes, scales, addends = (0 if part is None else part.stride(0) for part in self._parts())
        return codes, scales, addends

    def _parts(self) -> tuple[torch.Tensor | None, ...]:
        return self.codes, self.scales, self.addends

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The numbers [..., N, K], in plain torch."""
        return self.kind.numbers(self.codes, self.scales, self.addends).to(dtype)
