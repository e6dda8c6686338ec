"""AWQ of a whole layer: the scale of each place where one can be folded away, then the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from bestiary_quant.calibration.awq import ROWS, Part, Sample, awq, best_scale
from bestiary_quant.calibration.folds import Fold
from bestiary_quant.calibration.importance import same_input
from bestiary_quant.calibration.layer import Layer, Target, Unit, Weight
from bestiary_quant.checkpoints.coded import stacked

EXPERT_ROWS = 128
"""Inputs that are kept of each expert; of other weights ROWS."""
UNCLIPPED = (".q_proj.weight", ".k_proj.weight")
"""Their products are multiplied with each other, as the authors' `auto_clip.py` notes."""


def by_awq(layer: Layer, folds: Sequence[Fold]) -> tuple[dict[str, Weight], set[str]]:
    """The weights that are to be AWQ, and the names of all that folding changed, which then stand in the network."""
    targets = {target.name: target for target in layer.targets if target.by("awq")}
    if not targets:
        return {}, set()
    samples = {
        unit: Sample(target.shape[-1], ROWS if unit[1] is None else EXPERT_ROWS)
        for target in targets.values()
        for unit in target.units
    }
    layer.measure(list(samples.items()))
    scales: dict[tuple[str, int | None], torch.Tensor] = {}
    changed: set[str] = set()
    for fold in folds:
        readers = [targets[name] for name in fold.readers if name in targets]
        if readers and fold.possible(layer.weights):
            scale = _scale(layer, fold, readers, samples)
            fold.apply(layer.weights, scale)
            changed.update((*fold.divided, *fold.readers))
            scales.update({(target.name, fold.expert): scale for target in readers})
    for name in changed:
        layer.put(name, layer.weights[name])
    return {target.name: _made(layer, target, samples, scales) for target in targets.values()}, changed


def _units(target: Target, expert: int | None) -> list[int | None]:
    """The experts of a fold: one, all of a stack, or none."""
    return [expert] if expert is not None else [number for _, number in target.units]


def _scale(layer: Layer, fold: Fold, readers: Sequence[Target], samples: Mapping[Unit, Sample]) -> torch.Tensor:
    parts, seen = [], {}
    for target in readers:
        weight = layer.weights[target.name]
        assert isinstance(weight, torch.Tensor)
        for number in _units(target, fold.expert):
            unit = same_input(target.name), number
            seen[unit] = samples[unit]
            matrix = weight if number is None else weight[number]
            parts.append(Part(matrix, samples[unit].rows().to(weight.device), target.group))
    count = sum(sample.count for sample in seen.values())
    sizes = [sample.mean() * (sample.count / count) for sample in seen.values()] if count else []
    size = torch.stack([size.to(parts[0].weight.device) for size in sizes]).sum(0) if sizes else None
    where = parts[0].weight.device
    return torch.ones(readers[0].shape[-1], device=where) if size is None else best_scale(parts, size)


def _made(
    layer: Layer,
    target: Target,
    samples: Mapping[Unit, Sample],
    scales: Mapping[tuple[str, int | None], torch.Tensor],
) -> Weight:
    weight = layer.weights[target.name]
    assert isinstance(weight, torch.Tensor)
    clip = layer.settings.clip and not target.name.endswith(UNCLIPPED)
    made = []
    for unit in target.units:
        matrix = weight if unit[1] is None else weight[unit[1]]
        inputs = samples[unit].rows().to(matrix.device)
        scale = scales.get((target.name, unit[1]), scales.get((target.name, None)))
        made.append(awq(matrix, inputs if scale is None else inputs / scale, target.group, clip=clip))
    return made[0] if target.experts is None else stacked(made)
