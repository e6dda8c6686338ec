"""The weights of one layer, packed by what the text shows of their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from bestiary_quant.calibration.awq_layer import by_awq
from bestiary_quant.calibration.collector import Squares
from bestiary_quant.calibration.folds import Fold
from bestiary_quant.calibration.gptq import Hessian, gptq
from bestiary_quant.calibration.importance import Importance, same_input
from bestiary_quant.calibration.layer import Layer, Target, Unit, Weight
from bestiary_quant.calibration.methods import method_of
from bestiary_quant.checkpoints.coded import CodedMatrix, stacked
from bestiary_quant.making.pack import pack, tell
from bestiary_quant.making.schemes import find

HESSIANS = 1 << 31
"""Bytes of Hessians that are held at a time; a layer that needs more is run several times."""


def packed_layer(layer: Layer, folds: Iterable[Fold] = (), budget: int = HESSIANS) -> dict[str, Weight]:
    """All parameters of the layer, packed where they are to be; with AWQ, what was folded has changed too."""
    made, changed = by_awq(layer, tuple(folds))
    rest = [target for target in layer.targets if target.name not in made]
    squares: dict[Unit, Squares] = {}
    for target in rest:
        if method_of(target.scheme) is None and find(target.scheme).weighs:
            squares[same_input(target.name), None] = Squares(target.shape[-1], target.experts)
    parts: dict[str, list[CodedMatrix]] = {}
    for number, batch in enumerate(_batches(rest, budget)):
        hessians = {unit: Hessian(columns) for unit, columns in batch}
        layer.measure([*hessians.items(), *(squares.items() if number == 0 else ())])
        for unit, hessian in hessians.items():
            for target in rest:
                if target.by("gptq") and unit in target.units:
                    part = _gptq(layer, target, _numbers(layer, target, changed), unit, hessian)
                    parts.setdefault(target.name, []).append(part)
    for target in rest:
        if target.name in parts:
            made[target.name] = parts[target.name][0] if target.experts is None else stacked(parts[target.name])
        elif method_of(target.scheme) is None:
            importance = _importance(squares, target)
            packed = pack(_numbers(layer, target, changed), target.scheme, importance, name=target.name, report=tell)
            if packed is not None:
                made[target.name] = packed
    return {name: made.get(name, weight) for name, weight in layer.weights.items()}


def _batches(targets: Sequence[Target], budget: int) -> Iterator[list[tuple[Unit, int]]]:
    """The units whose Hessians are needed, with their columns, as many at a time as the budget holds; at least once."""
    wanted = {unit: target.shape[-1] for target in targets if target.by("gptq") for unit in target.units}
    batch: list[tuple[Unit, int]] = []
    for unit, columns in wanted.items():
        if batch and 4 * sum(width * width for _, width in [*batch, (unit, columns)]) > budget:
            yield batch
            batch = []
        batch.append((unit, columns))
    yield batch


def _numbers(layer: Layer, target: Target, changed: set[str]) -> torch.Tensor:
    """The plain numbers of a weight: of a matrix that was not folded from the checkpoint, which may have more bits."""
    if target.name not in changed and target.experts is None:
        return layer.source(target.name)
    weight = layer.weights[target.name]
    assert isinstance(weight, torch.Tensor)
    return weight


def _gptq(layer: Layer, target: Target, numbers: torch.Tensor, unit: Unit, hessian: Hessian) -> CodedMatrix:
    assert target.method is not None
    weight = numbers if unit[1] is None else numbers[unit[1]]
    return gptq(
        weight,
        hessian.matrix(weight.device),
        target.method.bits,
        target.group,
        symmetric=layer.settings.symmetric,
        act_order=layer.settings.act_order and unit[1] is None,
    )


def _importance(squares: dict[Unit, Squares], target: Target) -> torch.Tensor | None:
    held = squares.get((same_input(target.name), None))
    if held is None or not any(held.counts):
        return None
    measured = Importance({target.name: held.sums()}, {target.name: torch.tensor(held.counts)})
    return measured.of(target.name, target.shape)
