"""Weights that stay in the blocks of their file, and multiply in plain torch.

A product dequantises a few rows at a time, so that it needs little memory beside the blocks themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bestiary.nn.packed import PackedForm
from bestiary_quant.blocks.dequantize import dequantize
from bestiary_quant.blocks.types import BlockType

PANEL = 1 << 20
"""Numbers dequantised at a time: 4 MB of float32, which a processor's cache still holds when they are multiplied."""


class PackedMatrix:
    """A weight [out, in] in blocks of one type (a `bestiary.nn.PackedWeight`)."""

    def __init__(self, data: torch.Tensor, kind: BlockType, order: torch.Tensor | None = None) -> None:
        """data [rows, row bytes] uint8: a view on a file or memory of its own; it is never written.

        `order` [out] int64 says which of the rows are the weight's; None: all, as they are.
        """
        self._stored, self.kind = (data, order), kind
        count = len(data) if order is None else len(order)
        self.shape: tuple[int, int] = (count, data.shape[1] // kind.nbytes * kind.length)
        self.nbytes: int = count * data.shape[1]

    @property
    def data(self) -> torch.Tensor:
        """The blocks [out, row bytes] uint8; rows in an order of their own are copied when they are first asked for."""
        data, order = self._stored
        if order is not None:
            # Of whole rows index_select copies each in one go, which indexing with a tensor does not.
            data = data.index_select(0, order.to(data.device))
            self._stored = data, None
        return data

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, in] -> [T, out] in the type of x, in which the dequantised rows are multiplied too."""
        y = x.new_empty((x.shape[0], self.shape[0]))
        for rows, panel in self._panels():
            y[:, rows] = F.linear(x, panel.to(x.dtype))
        return y

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The weight [out, in] as plain numbers."""
        values = torch.empty(self.shape, dtype=dtype, device=self.data.device)
        self.copy_into(values)
        return values

    def copy_into(self, target: torch.Tensor) -> None:
        """Dequantise into target [out, in], of any type and on any device, without a second copy of the whole."""
        for rows, panel in self._panels():
            target[rows].copy_(panel)

    def rows(self, index: slice | torch.Tensor) -> PackedMatrix:
        """Some rows, in a new order or repeated: a view for a slice, else copied when they are needed.

        `rows(tokens).dequantize(dtype)` is what an embedding [V, D] gives for tokens [T].  Raises IndexError.
        """
        data, order = self._stored
        if order is not None:
            return PackedMatrix(data, self.kind, order[index])
        if isinstance(index, slice):
            return PackedMatrix(data[index], self.kind)
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(data):
            raise IndexError(f"rows {int(index.min())} to {int(index.max())} of {len(data)}")
        return PackedMatrix(data, self.kind, index)

    def to(self, device: torch.device | str) -> PackedMatrix:
        """The same blocks on another device; itself where they are there."""
        return self if torch.device(device) == self._stored[0].device else PackedMatrix(self.data.to(device), self.kind)

    def form(self) -> PackedForm:
        """Its blocks, under the name of their type."""
        data, order = self._stored
        return PackedForm(self.kind.name, {"blocks": data}, order)

    def clone(self) -> PackedMatrix:
        """The same blocks in memory of their own, independent of the file."""
        return PackedMatrix(self.data.clone(memory_format=torch.contiguous_format), self.kind)

    def _panels(self) -> Iterator[tuple[slice, torch.Tensor]]:
        count, columns = self.shape
        step = max(1, PANEL // max(columns, 1))
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            yield rows, dequantize(self.data[rows], self.kind)


class PackedStack:
    """Weights of one shape, the experts of a layer: [experts, out, in] in blocks of one type."""

    def __init__(self, data: torch.Tensor, kind: BlockType) -> None:
        """data [experts, out, row bytes] uint8."""
        self.data, self.kind = data, kind
        self.shape: tuple[int, int, int] = (data.shape[0], data.shape[1], data.shape[2] // kind.nbytes * kind.length)
        self.nbytes: int = data.numel()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, expert: int) -> PackedMatrix:
        """One weight, a view."""
        return PackedMatrix(self.data[expert], self.kind)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """All weights [experts, out, in] as plain numbers."""
        values = torch.empty(self.shape, dtype=dtype, device=self.data.device)
        self.copy_into(values)
        return values

    def copy_into(self, target: torch.Tensor) -> None:
        """Dequantise into target [experts, out, in], weight by weight."""
        for expert in range(len(self)):
            self[expert].copy_into(target[expert])

    def to(self, device: torch.device | str) -> PackedStack:
        """The same blocks on another device."""
        return PackedStack(self.data.to(device), self.kind)

    def form(self) -> PackedForm:
        """Its blocks, under the name of their type."""
        return PackedForm(self.kind.name, {"blocks": self.data})

    def clone(self) -> PackedStack:
        """The same blocks in memory of their own, independent of the file."""
        return PackedStack(self.data.clone(memory_format=torch.contiguous_format), self.kind)
