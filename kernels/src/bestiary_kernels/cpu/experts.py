"""A layer of gated experts in one call: rows are grouped by expert, so that each weight is read once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bestiary_kernels.cpu.library import Library, packer
from bestiary_kernels.cpu.panels import NUMBERS
from bestiary_kernels.cpu.weights import PanelStack

EXPERTS = 12
ACTIVATIONS = {
    "silu": 0,
    "swish": 0,
    "gelu": 1,
    "gelu_new": 2,
    "gelu_fast": 2,
    "gelu_pytorch_tanh": 2,
    "relu": 3,
}
"""By their names in configurations, the numbers that the library has for them."""

_ACTIVATION_BYTES = 48
_pack = packer("6q5q18q7q")


@dataclass(frozen=True)
class Stack:
    """The weights [experts, rows, columns] of a projection, as the library is told of them."""

    weight: torch.Tensor | PanelStack
    fields: tuple[int, ...]
    prepared: int
    """Bytes of a row that is multiplied with them."""

    @classmethod
    def of(cls, weight: torch.Tensor | PanelStack) -> Stack:
        """Of panels, or of plain numbers that lie beside each other."""
        rows, columns = weight.shape[1:]
        if isinstance(weight, PanelStack):
            panels = weight.panels
            fields = (panels.data.data_ptr(), 1, panels.type.number, rows, columns, panels.group)
            return cls(weight, fields, -(-columns // 32) * _ACTIVATION_BYTES)
        return cls(weight, (weight.data_ptr(), 0, NUMBERS[weight.dtype], rows, columns, 0), columns * 4)


def multiply(
    library: Library,
    x: torch.Tensor,
    weights: torch.Tensor,
    indices: torch.Tensor,
    stacks: tuple[Stack, Stack, Stack],
    act: str,
    threads: int,
) -> torch.Tensor:
    """x [T, D], weights [T, K] in its type and indices [T, K] int64 -> [T, D], with the stacks of gate, up and down."""
    (tokens, columns), chosen = x.shape, indices.shape[1]
    gate, up, down = stacks
    hidden, count, slots = gate.fields[3], gate.weight.shape[0], tokens * chosen
    order = torch.empty(3 * count + 2 * slots + 2, dtype=torch.int64)
    prepared = torch.empty(slots * max(gate.prepared, up.prepared), dtype=torch.uint8)
    prepared_hidden = torch.empty(slots * down.prepared, dtype=torch.uint8)
    gates, ups, made = x.new_empty(slots, hidden), x.new_empty(slots, hidden), x.new_empty(slots, columns)
    y = x.new_empty(tokens, columns)
    arguments = _pack(
        *(x.data_ptr(), NUMBERS[x.dtype], x.stride(0), tokens, columns, hidden),
        *(indices.data_ptr(), weights.data_ptr(), chosen, count, ACTIVATIONS[act]),
        *(*gate.fields, *up.fields, *down.fields),
        *(tensor.data_ptr() for tensor in (order, prepared, prepared_hidden, gates, ups, made, y)),
    )
    library.call(EXPERTS, arguments, threads)
    return y
