"""The weights of one layer, packed by what the text shows of their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from bestiary_quant.calibration.awq_layer import by_awq
from bestiary_quant.calibration.collector import Squares
from bestiary_quant.calibration.folds import Fold
from bestiary_quant.calibration.gptq import Hessian, gptq
from bestiary_quant.calibration.importance import Importance, same_input
from bestiary_quant.calibration.layer import Layer, Site, Unit, Weight
from bestiary_quant.calibration.methods import method_of
from bestiary_quant.checkpoints.coded import CodedMatrix, stacked
from bestiary_quant.making.pack import pack, tell
from bestiary_quant.making.schemes import find

HESSIANS = 1 << 31
"""Bytes of Hessians that are held at a time; a layer that needs more is run several times."""


def packed_layer(layer: Layer, folds: Iterable[Fold] = (), budget: int = HESSIANS) -> dict[str, Weight]:
    """All parameters of the layer, packed where they are to be; with AWQ, what was folded has changed too."""
    made, changed = by_awq(layer, tuple(folds))
    rest = [site for site in layer.sites if site.name not in made]
    squares: dict[Unit, Squares] = {}
    for site in rest:
        if method_of(site.scheme) is None and find(site.scheme).weighs:
            squares[same_input(site.name), None] = Squares(site.shape[-1], site.experts)
    parts: dict[str, list[CodedMatrix]] = {}
    for number, batch in enumerate(_batches(rest, budget)):
        hessians = {unit: Hessian(columns) for unit, columns in batch}
        layer.measure([*hessians.items(), *(squares.items() if number == 0 else ())])
        for unit, hessian in hessians.items():
            for site in rest:
                if site.by("gptq") and unit in site.units:
                    part = _gptq(layer, site, _numbers(layer, site, changed), unit, hessian)
                    parts.setdefault(site.name, []).append(part)
    for site in rest:
        if site.name in parts:
            made[site.name] = parts[site.name][0] if site.experts is None else stacked(parts[site.name])
        elif method_of(site.scheme) is None:
            importance = _importance(squares, site)
            packed = pack(_numbers(layer, site, changed), site.scheme, importance, name=site.name, report=tell)
            if packed is not None:
                made[site.name] = packed
    return {name: made.get(name, weight) for name, weight in layer.weights.items()}


def _batches(sites: Sequence[Site], budget: int) -> Iterator[list[tuple[Unit, int]]]:
    """The units whose Hessians are needed, with their columns, as many at a time as the budget holds; at least once."""
    wanted = {unit: site.shape[-1] for site in sites if site.by("gptq") for unit in site.units}
    batch: list[tuple[Unit, int]] = []
    for unit, columns in wanted.items():
        if batch and 4 * sum(width * width for _, width in [*batch, (unit, columns)]) > budget:
            yield batch
            batch = []
        batch.append((unit, columns))
    yield batch


def _numbers(layer: Layer, site: Site, changed: set[str]) -> torch.Tensor:
    """The plain numbers of a weight: of a matrix that was not folded from the checkpoint, which may have more bits."""
    if site.name not in changed and site.experts is None:
        return layer.source(site.name)
    weight = layer.weights[site.name]
    assert isinstance(weight, torch.Tensor)
    return weight


def _gptq(layer: Layer, site: Site, numbers: torch.Tensor, unit: Unit, hessian: Hessian) -> CodedMatrix:
    assert site.method is not None
    weight = numbers if unit[1] is None else numbers[unit[1]]
    return gptq(
        weight,
        hessian.matrix(weight.device),
        site.method.bits,
        site.group,
        symmetric=layer.settings.symmetric,
        act_order=layer.settings.act_order and unit[1] is None,
    )


def _importance(squares: dict[Unit, Squares], site: Site) -> torch.Tensor | None:
    held = squares.get((same_input(site.name), None))
    if held is None or not any(held.counts):
        return None
    measured = Importance({site.name: held.sums()}, {site.name: torch.tensor(held.counts)})
    return measured.of(site.name, site.shape)
