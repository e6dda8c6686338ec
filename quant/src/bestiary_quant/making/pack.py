"""From a weight and the name of a scheme to a packed weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bestiary.errors import CheckpointError, OptionError
from bestiary.records import resolve
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack
from bestiary_quant.making.panels import MAKING, stacked
from bestiary_quant.making.schemes import SCHEMES, Scheme, find
from bestiary_quant.packed import PackedMatrix, PackedStack

Packed = PackedMatrix | PackedStack | CodedMatrix | CodedStack

_LEAST = 2.0**-30
"""Importance below this part of the largest counts as this much, so that no block is without any."""


@dataclass(frozen=True)
class Substitution:
    """A weight that is not packed as it was wanted."""

    name: str
    wanted: str
    got: str | None
    """Another scheme, or None: the weight stays as it is."""
    why: str


def pack(
    tensor: torch.Tensor,
    scheme: str,
    importance: torch.Tensor | None = None,
    *,
    name: str = "",
    report: Callable[[Substitution], None] | None = None,
) -> Packed | None:
    """A weight [out, in], or a stack [experts, out, in], of any float type, packed on its device.

    None if no scheme fits it, so that it stays as it is.  `importance` [in], or [experts, in], says how much the errors
    of a column count: the mean square of what is multiplied with it.  Schemes that have no use for it ignore it.
    `report` hears when the weight gets another scheme than the one that was asked for.
    Raises OptionError for an unknown scheme and for importance that does not fit, CheckpointError for numbers that are
    not finite.
    """
    wanted = find(scheme)
    tensor = tensor.detach()
    if tensor.ndim not in (2, 3) or not tensor.is_floating_point():
        raise OptionError(
            f"A weight {list(tensor.shape)} of {tensor.dtype} cannot be quantised.",
            where=name or None,
            fix="a weight to quantise has two dimensions, or three with experts, and float numbers",
        )
    weights = None if importance is None else _checked(importance.detach(), tensor, name)
    largest = _largest(tensor, name)
    got, why = _fitting(wanted, tensor, largest)
    if got is not wanted and report is not None:
        report(Substitution(name, wanted.name, got.name if got else None, why))
    if got is None:
        return None
    if got.kind is None:
        return _coded(tensor, got)
    data = _blocks(tensor, got, weights if got.weighs else None)
    return PackedMatrix(data, got.kind) if data.ndim == 2 else PackedStack(data, got.kind)


def _coded(tensor: torch.Tensor, scheme: Scheme) -> CodedMatrix | CodedStack:
    make: Callable[..., CodedMatrix] = resolve(scheme.make)
    if tensor.ndim == 2:
        return make(tensor, **scheme.options)
    return stacked([make(expert, **scheme.options) for expert in tensor])


def _blocks(tensor: torch.Tensor, scheme: Scheme, importance: torch.Tensor | None) -> torch.Tensor:
    kind: Any = scheme.kind
    make: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] = resolve(scheme.make)
    *_, count, columns = tensor.shape
    data = torch.empty((*tensor.shape[:-1], kind.row(columns)), dtype=torch.uint8, device=tensor.device)
    step = max(1, MAKING // columns)
    experts = [(tensor, data)] if tensor.ndim == 2 else list(zip(tensor, data, strict=True))
    for number, (expert, target) in enumerate(experts):
        weights = importance if importance is None or importance.ndim == 1 else importance[number]
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            target[part] = make(expert[part].float().contiguous(), weights).view(part.stop - start, -1)
    return data


def _fitting(wanted: Scheme, tensor: torch.Tensor, largest: float) -> tuple[Scheme | None, str]:
    """The scheme that can hold the tensor, and why it is not the one that was wanted."""
    columns = tensor.shape[-1]
    if not tensor.numel():
        return None, "it has no numbers"
    scheme: Scheme | None = wanted
    why = ""
    while scheme is not None and columns % scheme.block:
        why = why or f"{columns} columns are no multiple of {scheme.block}"
        scheme = SCHEMES[scheme.instead] if scheme.instead else None
    if scheme is not None and scheme.largest is not None and largest > scheme.largest:
        return None, f"its numbers reach {largest:.4g}, and {scheme.name} ends at {scheme.largest:.0f}"
    return scheme, why


def _largest(tensor: torch.Tensor, name: str) -> float:
    """The largest size of a number.  Raises CheckpointError if not all are finite."""
    if not tensor.numel():
        return 0.0
    low, high = torch.aminmax(tensor)
    largest = float(torch.maximum(high.float(), -low.float()))
    if not largest < float("inf"):
        raise CheckpointError(
            "A weight has numbers that are not finite, so it cannot be quantised.",
            where=name or None,
            fix="`bestiary check` verifies the files; a model that was saved damaged has to be fetched from elsewhere",
        )
    return largest


def _checked(importance: torch.Tensor, tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Importance in float32, none zero, the largest of each expert 1."""
    if importance.shape not in (tensor.shape[-1:], (*tensor.shape[:-2], tensor.shape[-1])):
        raise OptionError(
            f"The importance has the shape {list(importance.shape)}, and the weight {list(tensor.shape)}.",
            where=name or None,
            fix="use an importance matrix that was made with this model",
        )
    weights = importance.to(tensor.device, torch.float64)
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise OptionError(
            "The importance has numbers that are negative or not finite.",
            where=name or None,
            fix="make the importance matrix again",
        )
    if not weights.numel():
        return weights.float()
    high = weights.amax(-1, keepdim=True)
    return torch.where(high > 0, weights / high, 1.0).clamp_(min=_LEAST).float()
