"""The operations as torch knows them, so that torch.compile can trace a model that uses native kernels.

`torch.ops.bestiary` has each with a fake implementation, which gives shapes without computing.  Eager code calls the
library directly, which is several times cheaper than a call through torch's dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bestiary_kernels.cpu import pointwise
from bestiary_kernels.cpu.library import library
from bestiary_kernels.cpu.linear import PlainWeight, multiply, multiply_plain
from bestiary_kernels.cpu.panels import Panels, take_rows
from bestiary_kernels.cpu.types import numbered

_library = torch.library.Library("bestiary", "DEF")  # type: ignore[no-untyped-call]
_SCHEMAS = (
    "rms_norm(Tensor x, Tensor weight, float eps, float offset) -> Tensor",
    "add(Tensor x, Tensor y) -> Tensor",
    "add_rms_norm(Tensor x, Tensor y, Tensor weight, float eps, float offset) -> (Tensor, Tensor)",
    "gated(Tensor gate, Tensor up, str act) -> Tensor",
    "rotate(Tensor q, Tensor k, Tensor cos, Tensor sin, bool interleaved) -> (Tensor, Tensor)",
    "linear(Tensor x, Tensor panels, int type, int rows, int group, Tensor? bias) -> Tensor",
    "plain_linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    "rows(Tensor index, Tensor panels, int type, int rows, int columns, int group, ScalarType dtype, float scale)"
    " -> Tensor",
)


def _rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    return pointwise.rms_norm(library(), x, weight, eps, offset, torch.get_num_threads())


def _add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return pointwise.add(library(), x, y, torch.get_num_threads())


def _add_rms_norm(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, eps: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return pointwise.add_rms_norm(library(), x, y, weight, eps, offset, torch.get_num_threads())


def _gated(gate: torch.Tensor, up: torch.Tensor, act: str) -> torch.Tensor:
    return pointwise.gated(library(), gate, up, act, torch.get_num_threads())


def _rotate(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    turned = pointwise.rotate(library(), (q, k), cos, sin, interleaved, torch.get_num_threads())
    return turned[0], turned[1]


def _linear(
    x: torch.Tensor, panels: torch.Tensor, type: int, rows: int, group: int, bias: torch.Tensor | None
) -> torch.Tensor:
    weight = Panels(panels, numbered(type), rows, x.shape[-1], group)
    return multiply(library(), x, [weight], [bias], torch.get_num_threads())[0]


def _plain_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return multiply_plain(library(), x, [PlainWeight(weight)], [bias], torch.get_num_threads())[0]


def _rows(
    index: torch.Tensor,
    panels: torch.Tensor,
    type: int,
    rows: int,
    columns: int,
    group: int,
    dtype: torch.dtype,
    scale: float,
) -> torch.Tensor:
    weight = Panels(panels, numbered(type), rows, columns, group)
    return take_rows(library(), weight, index, dtype, torch.get_num_threads(), scale)


_COMPUTE: dict[str, Callable[..., Any]] = {
    "rms_norm": _rms_norm,
    "add": _add,
    "add_rms_norm": _add_rms_norm,
    "gated": _gated,
    "rotate": _rotate,
    "linear": _linear,
    "plain_linear": _plain_linear,
    "rows": _rows,
}

_SHAPE: dict[str, Callable[..., Any]] = {
    "rms_norm": lambda x, weight, eps, offset: x.new_empty(x.shape),
    "add": lambda x, y: x.new_empty(x.shape),
    "add_rms_norm": lambda x, y, weight, eps, offset: (x.new_empty(x.shape), x.new_empty(x.shape)),
    "gated": lambda gate, up, act: gate.new_empty(gate.shape),
    "rotate": lambda q, k, cos, sin, interleaved: (q.new_empty(q.shape), k.new_empty(k.shape)),
    "linear": lambda x, panels, type, rows, group, bias: x.new_empty(x.shape[0], rows),
    "plain_linear": lambda x, weight, bias: x.new_empty(x.shape[0], weight.shape[0]),
    "rows": lambda index, panels, type, rows, columns, group, dtype, scale: panels.new_empty(
        index.shape[0], columns, dtype=dtype
    ),
}

for _schema in _SCHEMAS:
    _name = _schema.partition("(")[0]
    _library.define(_schema)  # type: ignore[no-untyped-call]
    _library.impl(_name, _COMPUTE[_name], "CPU")  # type: ignore[no-untyped-call]
    # What register_fake does, which also looks up the line of source that calls it: a fiftieth of a model's load.
    _library.impl(_name, _SHAPE[_name], "Meta")  # type: ignore[no-untyped-call]
