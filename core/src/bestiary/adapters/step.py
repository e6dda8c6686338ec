"""Which rows of a step use which adapter, and what the layers do with that.

A layer multiplies by its own weight once, for all rows; then each adapter adds its two small products to its rows.
Types are those of PEFT with `autocast_adapter_dtype=False`: matrices in the type of the model, their product rounded to
it before it is scaled and added.  DoRA scales whole rows, which is done in float32 and rounded once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bestiary.errors import GenerationError

Rows = slice | torch.Tensor


@dataclass(frozen=True)
class Part:
    """The change of some rows of one weight by one adapter."""

    a: torch.Tensor
    """[rank, in]"""
    b: torch.Tensor
    """[rows, rank]"""
    scaling: float
    start: int = 0
    gain: torch.Tensor | None = None
    """[rows] float32, of DoRA: the magnitude by the norm of the changed weight's rows."""
    bias: torch.Tensor | None = None
    """[rows], of the layer: DoRA does not scale it."""

    def change(self, x: torch.Tensor, y: torch.Tensor, rows: Rows) -> None:
        """Change y [T, out] at `rows` as x [T, in] has it."""
        added = F.linear(F.linear(x[rows].to(self.a.dtype), self.a), self.b) * self.scaling
        columns = slice(self.start, self.start + len(self.b))
        if self.gain is None:
            y[rows, columns] += added.to(y.dtype)
            return
        bias = 0.0 if self.bias is None else self.bias.float()
        y[rows, columns] = ((y[rows, columns].float() - bias + added.float()) * self.gain + bias).to(y.dtype)


@dataclass(frozen=True)
class Layers:
    """All that an adapter changes in a model."""

    linears: Mapping[str, tuple[Part, ...]]
    """By the path of a linear layer."""
    experts: Mapping[str, Mapping[tuple[str, int], tuple[Part, ...]]]
    """By the path of experts, and in them by projection and number of the expert."""
    nbytes: int

    @property
    def paths(self) -> tuple[str, ...]:
        return (*self.linears, *self.experts)


@dataclass(frozen=True)
class Selected:
    """The rows of one adapter in a step; None: all."""

    layers: Layers
    rows: torch.Tensor | None

    @property
    def index(self) -> Rows:
        return slice(None) if self.rows is None else self.rows


@dataclass(frozen=True)
class Selection:
    """A step's rows by adapter."""

    count: int
    """Rows that all layers see, and below those that the head sees."""
    all: tuple[Selected, ...]
    head_count: int
    head: tuple[Selected, ...]
    owners: torch.Tensor
    """[count]: for each row the place of its adapter in `all`, -1 for none."""


class Current(threading.local):
    """The selection of the step that a thread runs.

    A model may run in several threads at once, of which only those that entered a step have adapters, and a layer is
    called without being told which step it is part of.  A forward pass stays in the thread that began it.
    """

    selection: Selection | None = None


def select(
    spans: Sequence[tuple[Layers | None, int]], outputs: Sequence[int] | None, device: torch.device
) -> Selection | None:
    """The selection of a flat batch; None where no row has an adapter.

    `spans` are runs of rows in the batch's order, `outputs` the rows that the head sees (None: all).
    """
    if all(layers is None for layers, _ in spans):
        return None
    places: dict[int, int] = {}
    used: list[Layers] = []
    owners: list[int] = []
    for layers, count in spans:
        if layers is not None and id(layers) not in places:
            places[id(layers)] = len(used)
            used.append(layers)
        owners += [-1 if layers is None else places[id(layers)]] * count
    head = owners if outputs is None else [owners[row] for row in outputs]
    return Selection(
        len(owners),
        _selected(used, owners, device),
        len(head),
        _selected(used, head, device),
        torch.tensor(owners, device=device),
    )


def _selected(used: Sequence[Layers], owners: Sequence[int], device: torch.device) -> tuple[Selected, ...]:
    rows_of: list[list[int]] = [[] for _ in used]
    for row, owner in enumerate(owners):
        if owner >= 0:
            rows_of[owner].append(row)
    return tuple(
        Selected(layers, None if len(rows) == len(owners) else torch.tensor(rows, device=device))
        for layers, rows in zip(used, rows_of, strict=True)
        if rows
    )


class LinearChange:
    """What stands in `Linear.adapter`."""

    def __init__(self, current: Current, path: str, is_head: bool) -> None:
        self._current, self._path, self._is_head = current, path, is_head

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        selection = self._current.selection
        if selection is None:
            return y
        count = selection.head_count if self._is_head else selection.count
        if len(x) != count:
            raise GenerationError(f"{self._path} sees {len(x)} rows of a step of {count} rows with adapters.")
        for selected in selection.head if self._is_head else selection.all:
            for part in selected.layers.linears.get(self._path, ()):
                part.change(x, y, selected.index)
        return y


class ExpertsChange:
    """What stands in `Experts.adapter`."""

    def __init__(self, current: Current, path: str) -> None:
        self._current, self._path = current, path

    def __call__(self, name: str, expert: int, rows: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        selection = self._current.selection
        if selection is None:
            return y
        for owner, selected in enumerate(selection.all):
            parts = selected.layers.experts.get(self._path, {}).get((name, expert))
            if parts:
                mine = slice(None) if selected.rows is None else (selection.owners[rows] == owner).nonzero()[:, 0]
                for part in parts:
                    part.change(x, y, mine)
        return y
