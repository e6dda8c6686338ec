"""Weights as the codes of a checkpoint with their scales, which multiply in plain torch.

One class serves all formats of this package.  What differs between them, how the codes are packed and what they stand
for, is settled when a weight is read: by a view on the file where its rows lie one below the other, else by a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from bestiary.nn.packed import PackedForm
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.forms import form_of
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.packed import PANEL


class CodedMatrix:
    """A weight [out, in] as codes and their scaling (a `bestiary.nn.PackedWeight`)."""

    def __init__(self, codes: Codes, scaling: Scaling, input_scale: torch.Tensor | None = None) -> None:
        """`input_scale` is what the checkpoint has for code that quantises activations too; nothing here uses it."""
        self.codes, self.scaling, self.input_scale = codes, scaling, input_scale
        self.shape: tuple[int, int] = (len(codes.data), codes.columns)
        self.nbytes: int = codes.data.nbytes + sum(tensor.nbytes for tensor in scaling.tensors().values())

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, in] -> [T, out] in the type of x, in which the dequantised rows are multiplied too."""
        y = x.new_empty((x.shape[0], self.shape[0]))
        for rows, panel in self._panels():
            y[:, rows] = F.linear(x, panel.to(x.dtype))
        return y

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The weight [out, in] as plain numbers."""
        values = torch.empty(self.shape, dtype=dtype, device=self.codes.data.device)
        for rows, panel in self._panels():
            values[rows].copy_(panel)
        return values

    def rows(self, index: slice | torch.Tensor) -> CodedMatrix:
        """Some rows, in a new order or repeated: views for a slice, else copies.

        `rows(tokens).dequantize(dtype)` is what an embedding [V, D] gives for tokens [T].
        """
        return CodedMatrix(self.codes.rows(index), self.scaling.rows(index), self.input_scale)

    def to(self, device: torch.device | str) -> CodedMatrix:
        """The same weight on another device."""
        held = None if self.input_scale is None else self.input_scale.to(device)
        return CodedMatrix(self.codes.to(device), self.scaling.to(device), held)

    def form(self) -> PackedForm | None:
        """Its codes, where they are numbers of 8 bits or evenly spaced ones of 4."""
        return form_of(self.codes, self.scaling)

    def _panels(self) -> Iterator[tuple[slice, torch.Tensor]]:
        count, columns = self.shape
        step = max(1, PANEL // max(columns, 1))
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            yield rows, self.scaling.apply(self.codes.numbers(rows), rows)


class CodedStack:
    """Weights of one shape, the experts of a layer: [experts, out, in] (a `bestiary.nn.PackedStack`)."""

    def __init__(self, matrix: CodedMatrix, experts: int) -> None:
        """`matrix` has the rows of all experts, one expert below the other."""
        self.matrix = matrix
        self.shape: tuple[int, int, int] = (experts, matrix.shape[0] // experts, matrix.shape[1])
        self.nbytes: int = matrix.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, expert: int) -> CodedMatrix:
        """One weight, a view."""
        if not -len(self) <= expert < len(self):
            raise IndexError(f"expert {expert} of {len(self)}")
        start = expert % len(self) * self.shape[1]
        return self.matrix.rows(slice(start, start + self.shape[1]))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """All weights [experts, out, in] as plain numbers."""
        return self.matrix.dequantize(dtype).view(self.shape)

    def form(self) -> PackedForm | None:
        """That of the rows of all experts, cut into experts."""
        form = self.matrix.form()
        if form is None:
            return None
        return PackedForm(
            form.type, {name: x.view(len(self), self.shape[1], *x.shape[1:]) for name, x in form.tensors.items()}
        )

    def to(self, device: torch.device | str) -> CodedStack:
        """The same weights on another device."""
        return CodedStack(self.matrix.to(device), self.shape[0])


def stacked(parts: Sequence[CodedMatrix]) -> CodedStack:
    """Weights of one shape that were made alike, without an order of their own, as the experts of a layer."""
    codes, scaling = parts[0].codes, parts[0].scaling
    each = len(scaling.scales)

    def joined(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        there = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(there) if there else None

    bands = [
        None if part.scaling.band is None else part.scaling.band + number * each for number, part in enumerate(parts)
    ]
    whole = Scaling(
        torch.cat([part.scaling.scales for part in parts]),  # in the widest of their types
        scaling.run,
        zeros=joined([part.scaling.zeros for part in parts]),
        offsets=joined([part.scaling.offsets for part in parts]),
        band=joined(bands),
    )
    data = torch.cat([part.codes.data for part in parts])
    return CodedStack(CodedMatrix(Codes(data, codes.bits, codes.columns, codes.table), whole), len(parts))


def shaped(matrix: CodedMatrix, shape: tuple[int, ...]) -> CodedMatrix | CodedStack:
    """The matrix, or the stack [experts, out, in] whose rows it has."""
    return matrix if len(shape) == 2 else CodedStack(matrix, shape[0])
