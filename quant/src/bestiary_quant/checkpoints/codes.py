"""The codes of a weight, and the numbers that they stand for before they are scaled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from bestiary_quant.checkpoints.bits import unpack


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes [out, in] that are never written: a view on a file, or memory of their own."""

    data: torch.Tensor
    """[out, row bytes] uint8, a string of bits (see `bits`); or [out, in] in float8 or int8, codes that are numbers."""
    bits: int
    columns: int
    table: tuple[float, ...] | None = None
    """What each of the 2^bits codes stands for; None: for itself."""

    def numbers(self, rows: slice) -> torch.Tensor:
        """Some rows [R, in] as float32, in memory of their own."""
        data = self.data[rows]
        if data.dtype != torch.uint8:
            return data.to(torch.float32, copy=True)
        if self.bits == 4 and self.columns % 2 == 0:
            # A byte stands for two numbers: they are fetched as one element of eight bytes.
            pairs = _pairs(self.table or tuple(range(16)), data.device)
            return pairs.index_select(0, data.flatten().int()).view(torch.float32).view(len(data), self.columns)
        codes = unpack(data, self.bits, self.columns)
        if self.table is None:
            return codes.float()
        return _tensor(self.table, data.device)[codes.int()]

    def rows(self, index: slice | torch.Tensor) -> Codes:
        """Some rows, in a new order or repeated: a view for a slice."""
        return replace(self, data=self.data[index])

    def to(self, device: torch.device | str) -> Codes:
        """The same on another device."""
        return replace(self, data=self.data.to(device))


def centred(bits: int) -> tuple[float, ...]:
    """The table of codes whose middle is zero: code 2^(bits - 1) stands for 0."""
    return tuple(float(code - (1 << bits - 1)) for code in range(1 << bits))


@lru_cache(maxsize=64)
def _tensor(table: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(table, dtype=torch.float32, device=device)


@lru_cache(maxsize=64)
def _pairs(table: tuple[float, ...], device: torch.device) -> torch.Tensor:
    values = _tensor(table, device)
    byte = torch.arange(256, device=device)
    return torch.stack((values[byte & 15], values[byte >> 4]), -1).view(torch.int64).flatten()
