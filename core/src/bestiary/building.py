"""Building a model: a network on the meta device, and the plan by which a checkpoint fills it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from bestiary.config import Config
from bestiary.errors import InvalidPlugin, WeightMismatch
from bestiary.nearest import nearest
from bestiary.nn import Embedding, Experts, Linear, PackedWeight
from bestiary.nn.packed import Packed
from bestiary.protocols import Checkpoint, PackingPlan
from bestiary.pulling import sites
from bestiary.records import Architecture, resolve
from bestiary.weights import Plan, plan

Pack = Callable[[str, torch.Tensor], PackedWeight | None]
"""(parameter name, tensor) -> the packed weight, or None to keep the tensor."""
PLAIN = frozenset(("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "BOOL", "mixed"))
"""Types of checkpoints that are no packing."""
_NUMBER = re.compile(r"([0-9]{1,9})")


def build_empty(architecture: Architecture, config: Config) -> nn.Module:
    """The network on the meta device: shapes without data."""
    build = resolve(architecture.model)
    with torch.device("meta"):
        model = build(config)
    if not isinstance(model, nn.Module):
        raise InvalidPlugin(f"{architecture.model} returned a {type(model).__name__}; a torch module is due.")
    hollow = next((name for name, buffer in model.named_buffers() if buffer.is_meta), None)
    if hollow:
        raise InvalidPlugin(
            f"{architecture.model} makes the buffer {hollow} without data.",
            fix='compute it with device="cpu", for a network is built on the meta device',
        )
    return model.eval()


def make_plan(architecture: Architecture, config: Config, model: nn.Module, checkpoint: Checkpoint) -> Plan:
    """The checked plan: every parameter has a recipe of its shape, every tensor a use.  Reads no data.

    Raises WeightMismatch that lists every difference at once.
    """
    made = plan((*_stored_rules(architecture, checkpoint), *architecture.weights), checkpoint.names(), config)
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    given = made.shapes(checkpoint.shape)
    missing = [name for name in wanted if name not in given and name not in made.ties]
    unexpected = [name for name in given if name not in wanted]
    misshaped = {name: (given[name], wanted[name]) for name in wanted if name in given and given[name] != wanted[name]}
    if missing or unexpected or misshaped:
        raise _mismatch(architecture, checkpoint, missing, unexpected, misshaped)
    return made


def nbytes(model: nn.Module, dtype: torch.dtype) -> int:
    """What the parameters take when they are loaded plain; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize


def needed_bytes(
    model: nn.Module, plan: Plan, checkpoint: Checkpoint, dtype: torch.dtype, packing: PackingPlan | None = None
) -> int:
    """What a load will take: weights that stay packed as they are stored, others as `packing` has them, or plain."""
    assigned = {} if packing is None else packing.assigned
    numbers = {name: parameter.numel() for name, parameter in model.named_parameters()}
    packs = {site.name for site in sites(model, plan, checkpoint) if site.stored not in PLAIN}
    total = 0
    for name, recipe in plan.recipes.items():
        if name in assigned and assigned[name].scheme is not None:
            total += assigned[name].nbytes
        elif name in packs:
            total += sum(checkpoint.nbytes(source) for source in recipe.sources())
        else:
            total += numbers[name] * dtype.itemsize
    return total


def published(
    architecture: Architecture, config: Config, checkpoint: Checkpoint
) -> tuple[Plan, dict[str, tuple[int, ...]]]:
    """The plan, and the shapes of its tensors, for the layout in which models of the architecture are published.

    A GGUF file has another one; adapters and experts, which name and shape what they change, have this one.
    """
    stored = plan(_stored_rules(architecture, checkpoint), checkpoint.names(), config)
    return plan(architecture.weights, stored.recipes, config), stored.shapes(checkpoint.shape)


def _stored_rules(architecture: Architecture, checkpoint: Checkpoint) -> tuple[Any, ...]:
    stored_as = getattr(checkpoint, "gguf", None)
    return next((form.weights for form in architecture.gguf if form.architecture == stored_as), ())


def resident_bytes(model: nn.Module) -> int:
    """What the weights take, packed ones as they are packed; shared ones count once."""
    packed = {id(weight): weight.nbytes for module in model.modules() for weight in _held(module)}
    return sum(parameter.nbytes for parameter in model.parameters()) + sum(packed.values())


def _held(module: nn.Module) -> list[Packed]:
    if isinstance(module, Linear | Embedding):
        return [] if module.packed is None else [module.packed]
    return list(module.packed.values()) if isinstance(module, Experts) else []


def _mismatch(
    architecture: Architecture,
    checkpoint: Checkpoint,
    missing: list[str],
    unexpected: list[str],
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> WeightMismatch:
    lines = [f"The checkpoint does not fit {architecture.name}:"]
    for title, names, others in (("missing", missing, unexpected), ("unexpected", unexpected, missing)):
        for folded, members in fold(names):
            near = next(iter(nearest(members[0], others, count=1)), "")
            times = f" ({len(members)} tensors)" if len(members) > 1 else ""
            lines.append(f"  {title:10} {folded}{times}" + (f"; nearest: {near}" if near else ""))
    shapes: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for name, pair in misshaped.items():
        shapes.setdefault(pair, []).append(name)
    for (given, wanted), names in shapes.items():
        for folded, _ in fold(names):
            lines.append(f"  misshaped  {folded}: is {list(given)}, should be {list(wanted)}")
    fix = "check that config.json belongs to these weights; `bestiary inspect` prints both sides"
    if missing and not unexpected and not misshaped:
        fix = "the file is incomplete or a shard is absent: fetch it again; `bestiary check` verifies the files"
    return WeightMismatch(
        "\n".join(lines[:40] + ([f"  and {len(lines) - 40} more"] if len(lines) > 40 else [])),
        where=checkpoint.origin,
        fix=fix,
        missing=missing,
        unexpected=unexpected,
        misshaped=misshaped,
    )


def fold(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Names that differ by their numbers only, as one: model.layers.{0-31}.mlp.up_proj.weight with its members."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_NUMBER.sub("#", name), []).append(name)
    return [(_folded(members), members) for members in groups.values()]


def _folded(members: list[str]) -> str:
    parts = [_NUMBER.split(name) for name in members]
    made = ""
    for place, column in enumerate(zip(*parts, strict=True)):
        values = sorted({int(value) for value in column}) if place % 2 else []
        made += column[0] if len(set(column)) == 1 else f"{{{_ranges(values)}}}"
    return made


def _ranges(values: list[int]) -> str:
    spans: list[list[int]] = []
    for value in values:
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
