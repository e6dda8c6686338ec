"""From a weight and the name of a scheme to a packed weight."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from bestiary.errors import CheckpointError, OptionError
from bestiary.records import resolve
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack, stacked
from bestiary_quant.making.panels import MAKING
from bestiary_quant.making.schemes import SCHEMES, Scheme, find
from bestiary_quant.packed import PackedMatrix, PackedStack

log = logging.getLogger("bestiary_quant.making")

Packed = PackedMatrix | PackedStack | CodedMatrix | CodedStack
Source = torch.Tensor | Packed

READ = 1 << 24
"""Numbers after which pages of a file that were read are given back."""
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


def tell(substitution: Substitution) -> None:
    """Log what became of a weight; a `report` for those who pack a model."""
    got = substitution.got or "nothing"
    log.warning("%s: %s in place of %s: %s", substitution.name, got, substitution.wanted, substitution.why)


def pack(
    source: Source,
    scheme: str,
    importance: torch.Tensor | None = None,
    *,
    name: str = "",
    report: Callable[[Substitution], None] | None = None,
    between: Callable[[], None] | None = None,
) -> Packed | None:
    """A weight [out, in], or a stack [experts, out, in], of any float type or packed already, packed on its device.

    None if no scheme fits it, so that it stays as it is.  `importance` [in], or [experts, in], says how much the errors
    of a column count: the mean square of what is multiplied with it.  Schemes that have no use for it ignore it.
    `report` hears when the weight gets another scheme than the one that was asked for; `between` is called now and
    then, so that pages of a file that were read can be given back.
    Raises OptionError for an unknown scheme and for importance that does not fit, CheckpointError for numbers that are
    not finite.
    """
    wanted = find(scheme)
    if isinstance(source, torch.Tensor):
        source = source.detach()
        if source.ndim not in (2, 3) or not source.is_floating_point():
            raise OptionError(
                f"A weight {list(source.shape)} of {source.dtype} cannot be quantised.",
                where=name or None,
                fix="a weight to quantise has two dimensions, or three with experts, and float numbers",
            )
    shape = tuple(source.shape)
    got, why = fitting(wanted, shape)
    largest = 0.0 if got is None else _largest(source, name, between)
    if got is not None and got.largest is not None and largest > got.largest:
        why = f"its numbers reach {largest:.4g}, and {got.name} ends at {got.largest:.0f}"
        got = None
    if got is not wanted and report is not None:
        report(Substitution(name, wanted.name, None if got is None else got.name, why))
    if got is None:
        return None
    if got.kind is None:
        return _coded(source, got)
    weights = None if importance is None or not got.weighs else _checked(importance.detach(), shape, name)
    data = _blocks(source, got, weights, between)
    return PackedMatrix(data, got.kind) if data.ndim == 2 else PackedStack(data, got.kind)


def fitting(wanted: Scheme, shape: tuple[int, ...]) -> tuple[Scheme | None, str]:
    """The scheme that can hold a weight of this shape, and why it is not the one that was wanted."""
    columns = shape[-1]
    if 0 in shape:
        return None, "it has no numbers"
    scheme: Scheme | None = wanted
    why = ""
    while scheme is not None and columns % scheme.block:
        why = why or f"{columns} columns are no multiple of {scheme.block}"
        scheme = SCHEMES[scheme.instead] if scheme.instead else None
    return scheme, why


def packed_bytes(scheme: Scheme, shape: tuple[int, ...]) -> int:
    """What a weight takes, about for schemes whose scales lie beside the codes."""
    rows = prod(shape[:-1])
    if scheme.kind is not None:
        return rows * scheme.kind.row(shape[-1])
    return int(rows * shape[-1] * scheme.bits / 8)


def rows_of(source: Source, part: slice) -> torch.Tensor:
    """Some rows of a weight [out, in] as float32."""
    if isinstance(source, torch.Tensor):
        return source[part].float().contiguous()
    assert isinstance(source, PackedMatrix | CodedMatrix)
    return source.rows(part).dequantize()


def _coded(source: Source, scheme: Scheme) -> CodedMatrix | CodedStack:
    make: Callable[..., CodedMatrix] = resolve(scheme.make)
    parts = [make(_whole(expert), **scheme.options) for expert in _experts(source)]
    return parts[0] if len(source.shape) == 2 else stacked(parts)


def _blocks(
    source: Source, scheme: Scheme, importance: torch.Tensor | None, between: Callable[[], None] | None
) -> torch.Tensor:
    kind: Any = scheme.kind
    make: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] = resolve(scheme.make)
    shape = tuple(source.shape)
    device = source.device if isinstance(source, torch.Tensor) else None
    data = torch.empty((*shape[:-1], kind.row(shape[-1])), dtype=torch.uint8, device=device)
    targets = [data] if data.ndim == 2 else list(data)
    for number, (expert, target) in enumerate(zip(_experts(source), targets, strict=True)):
        weights = importance if importance is None or importance.ndim == 1 else importance[number]
        for part in _parts(shape, between):
            target[part] = make(rows_of(expert, part), weights).view(part.stop - part.start, -1)
    return data


def _experts(source: Source) -> Iterator[Source]:
    """The matrices of a stack, or the one matrix."""
    if len(source.shape) == 2:
        yield source
    else:
        for number in range(source.shape[0]):
            yield source[number]  # type: ignore[index]  # a tensor or a stack


def _parts(shape: tuple[int, ...], between: Callable[[], None] | None) -> Iterator[slice]:
    """The rows of a matrix, some at a time; after each `READ` numbers `between` is called."""
    step, done = max(1, MAKING // shape[-1]), 0
    for start in range(0, shape[-2], step):
        stop = min(start + step, shape[-2])
        yield slice(start, stop)
        done += (stop - start) * shape[-1]
        if between is not None and done >= READ:
            between()
            done = 0


def _whole(source: Source) -> torch.Tensor:
    return source if isinstance(source, torch.Tensor) else source.dequantize()


def _largest(source: Source, name: str, between: Callable[[], None] | None) -> float:
    """The largest size of a number.  Raises CheckpointError if not all are finite."""
    largest = 0.0
    for expert in _experts(source):
        for part in _parts(tuple(source.shape), between):
            low, high = torch.aminmax(expert[part] if isinstance(expert, torch.Tensor) else rows_of(expert, part))
            size = float(torch.maximum(high.float(), -low.float()))
            largest = max(largest, size) if size == size else size
            if not largest < float("inf"):
                raise CheckpointError(
                    "A weight has numbers that are not finite, so it cannot be quantised.",
                    where=name or None,
                    fix="`bestiary check` verifies the files; a model that was saved damaged has to be fetched anew",
                )
    return largest


def _checked(importance: torch.Tensor, shape: tuple[int, ...], name: str) -> torch.Tensor:
    """Importance in float32, none zero, the largest of each expert 1."""
    if importance.shape not in (shape[-1:], (*shape[:-2], shape[-1])):
        raise OptionError(
            f"The importance has the shape {list(importance.shape)}, and the weight {list(shape)}.",
            where=name or None,
            fix="use an importance matrix that was made with this model",
        )
    weights = importance.to(torch.float64)
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
