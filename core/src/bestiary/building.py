"""Building a model: on the meta device first, then parameter by parameter from the checkpoint."""

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
from bestiary.protocols import Checkpoint
from bestiary.records import Architecture, Progress, resolve
from bestiary.weights import Plan, plan

Pack = Callable[[str, torch.Tensor], PackedWeight | None]
"""(parameter name, tensor) -> the packed weight, or None to keep the tensor."""
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
    """What the parameters take when they are loaded; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize


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


def pull(
    model: nn.Module,
    made: Plan,
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    pack: Pack | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Make each parameter from the checkpoint, in its place, type and (with `pack`) packing, and release what was read.

    So the memory that a load needs is the loaded model and one tensor.
    """
    places = _places(model)
    read_packed: Callable[[str], Packed | None] = getattr(checkpoint, "packed", lambda name: None)
    total = sum(checkpoint.nbytes(name) for recipe in made.recipes.values() for name in recipe.sources())
    done = 0
    with torch.no_grad():
        for name, recipe in made.recipes.items():
            module, attribute = places[name][0]
            held = recipe.packed(read_packed) if pack is None and _can_hold(module, attribute) else None
            if held is None:
                target = torch.empty(getattr(module, attribute).shape, dtype=dtype, device="cpu" if pack else device)
                recipe.fill(target, checkpoint.read)
                held = pack(name, target) if pack and isinstance(module, Linear) and attribute == "weight" else None
            if held is None:
                _put(places[name], nn.Parameter(target.to(device), requires_grad=False))
            else:
                _hold(places[name], held.to(device), dtype)
            checkpoint.release()
            done += sum(checkpoint.nbytes(source) for source in recipe.sources())
            if progress:
                progress(Progress("load", done, total, name))
    for target_name, source_name in made.ties.items():
        source, attribute = places[source_name][0]
        held = getattr(source, "packed", None)
        if held is None:
            _put(places[target_name], getattr(source, attribute))
        else:
            _hold(places[target_name], held, dtype)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


Place = tuple[nn.Module, str]


def _places(model: nn.Module) -> dict[str, list[Place]]:
    """Where each parameter stands, by name; a network that shares one has several places for it."""
    places: dict[str, list[Place]] = {}
    same: dict[int, list[Place]] = {}
    for path, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            places[f"{path}.{attribute}" if path else attribute] = found = same.setdefault(id(parameter), [])
            found.append((module, attribute))
    return places


def _put(places: Iterable[Place], parameter: nn.Parameter) -> None:
    for module, attribute in places:
        setattr(module, attribute, parameter)


def _can_hold(module: nn.Module, attribute: str) -> bool:
    return isinstance(module, Experts) or (isinstance(module, Linear | Embedding) and attribute == "weight")


def _hold(places: Iterable[Place], packed: Any, dtype: torch.dtype) -> None:
    for module, attribute in places:
        if isinstance(module, Embedding):
            module.pack(packed, dtype)
        elif isinstance(module, Experts):
            module.pack(attribute, packed)
        elif isinstance(module, Linear):
            module.pack(packed)


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
