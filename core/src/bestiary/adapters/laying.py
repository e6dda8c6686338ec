"""An adapter laid on a model: its matrices on the device and in the type of the model, by layer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from bestiary.adapters.names import Change, Names
from bestiary.adapters.peft import PeftAdapter
from bestiary.adapters.step import Layers, Part
from bestiary.errors import CheckpointError, WeightMismatch
from bestiary.nn import Experts, Linear
from bestiary.weights import Plan

_MOST_LISTED = 20

log = logging.getLogger("bestiary.adapters")


@dataclass(frozen=True)
class Base:
    """A loaded model, as adapters must know it."""

    model: nn.Module
    plan: Plan
    """By which its weights were made, and the shapes of the tensors that they were made of."""
    shapes: Mapping[str, tuple[int, ...]]
    device: torch.device
    dtype: torch.dtype
    id: str = ""
    heads: frozenset[str] = frozenset({"lm_head"})
    """Paths of the linear layers that see only the rows whose logits are wanted."""


def lay(adapter: PeftAdapter, base: Base, names: Names) -> Layers:
    """Match an adapter with a model, whose `names` are made once.

    Raises WeightMismatch that lists everything that does not fit, CheckpointError for a magnitude without a norm.
    """
    changes = _changes(adapter, base, names)
    moved: dict[int, torch.Tensor] = {}
    linears: dict[str, tuple[Part, ...]] = {}
    experts: dict[str, dict[tuple[str, int], tuple[Part, ...]]] = {}
    nbytes = 0
    with torch.no_grad():
        for change, scaling in changes:
            if id(change.a) not in moved:
                moved[id(change.a)] = change.a.to(base.device, base.dtype).contiguous()
                nbytes += moved[id(change.a)].nbytes
            part = _part(change, moved[id(change.a)], scaling, base, adapter.origin)
            nbytes += part.b.nbytes + (0 if part.gain is None else part.gain.nbytes)
            path, _, name = change.parameter.rpartition(".")
            if change.expert is None:
                linears[path] = (*linears.get(path, ()), part)
            else:
                of = experts.setdefault(path, {})
                of[name, change.expert] = (*of.get((name, change.expert), ()), part)
    return Layers(linears, experts, nbytes)


def _changes(adapter: PeftAdapter, base: Base, names: Names) -> list[tuple[Change, float]]:
    """Every change with its scaling."""
    misfits: list[WeightMismatch] = []
    made: list[tuple[Change, float]] = []
    paths: dict[str, str] = {}
    for path, lora in adapter.weights.items():
        try:
            for change in names.changes(path, lora, adapter.config.version):
                _owner(base.model, change)
                if paths.setdefault(change.source, path) != path:
                    raise WeightMismatch(f"The adapter changes {change.source} twice: {paths[change.source]}, {path}.")
                made.append((change, lora.scaling))
        except WeightMismatch as misfit:
            misfits.append(misfit)
        if len(misfits) > _MOST_LISTED:
            break
    for path in adapter.copies:
        if len(misfits) <= _MOST_LISTED and (differs := _differs(adapter, base, names, path)):
            misfits.append(differs)
    if misfits:
        raise _mismatch(adapter, misfits)
    return made


def _owner(model: nn.Module, change: Change) -> Linear | Experts:
    path, _, name = change.parameter.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise WeightMismatch(f"The model has no module {path} that an adapter can change.") from None
    if isinstance(module, Linear) and name == "weight" and change.expert is None:
        return module
    if isinstance(module, Experts) and change.expert is not None:
        return module
    raise WeightMismatch(
        f"The adapter changes {change.parameter}, which is no linear layer but part of {type(module).__name__}.",
        fix="merge the adapter into its model with PEFT (merge_and_unload), and load the result",
    )


def _differs(adapter: PeftAdapter, base: Base, names: Names, path: str) -> WeightMismatch | None:
    """PEFT would put a weight that an adapter brings along into the model, which matters where it is another one."""
    copy = adapter.copies[path]
    try:
        parameter = names.stored(path)
    except WeightMismatch as misfit:
        return misfit
    if parameter is not None:
        owner, _, name = parameter.rpartition(".")
        module = base.model.get_submodule(owner)
        if isinstance(module, Linear) and module.packed is not None and tuple(copy.shape) == module.packed.shape:
            log.warning("%s brings the weight of %s along, which is not compared with a packed one", adapter.id, path)
            return None
        weight = getattr(module, name)
        if weight is not None and copy.shape == weight.shape and torch.equal(copy.to(weight), weight):
            return None
    return WeightMismatch(
        f"The adapter brings a weight of {path} along, which is not that of the model.",
        fix="merge the adapter into its model with PEFT (merge_and_unload), and load the result",
    )


def _part(change: Change, a: torch.Tensor, scaling: float, base: Base, origin: str) -> Part:
    b = change.b.to(base.device, base.dtype).contiguous()
    if change.magnitude is None:
        return Part(a, b, scaling, change.start)
    owner = _owner(base.model, change)
    stop = change.start + len(b)
    bias = None
    if isinstance(owner, Linear):
        weight = owner.packed.dequantize() if owner.packed is not None else owner.weight
        bias = None if owner.bias is None else owner.bias[change.start : stop]
    else:
        weight = getattr(owner, change.parameter.rpartition(".")[2])[change.expert]
    assert weight is not None
    rows = weight[change.start : stop].to(base.device).float()
    norm = torch.linalg.vector_norm(rows + scaling * (b.float() @ a.float()), dim=1)
    magnitude = change.magnitude.to(base.device).float()
    gain = torch.where(magnitude.isnan(), 1.0, magnitude / norm)
    if not bool(gain.isfinite().all()):
        raise CheckpointError(
            f"The adapter has a magnitude for a row of {change.parameter} that is all zeros.", where=origin
        )
    return Part(a, b, scaling, change.start, gain, bias)


def _mismatch(adapter: PeftAdapter, misfits: list[WeightMismatch]) -> WeightMismatch:
    lines = [misfit.what for misfit in misfits[:_MOST_LISTED]]
    if len(misfits) > _MOST_LISTED:
        lines.append("and more")
    trained = f'it was trained on "{adapter.config.base[:200]}"' if adapter.config.base else "check its base model"
    return WeightMismatch(
        lines[0] if len(misfits) == 1 else "The adapter does not fit the model:\n  " + "\n  ".join(lines),
        where=adapter.origin or adapter.id,
        fix=misfits[0].fix or f"load the adapter on the model that it was made for: {trained}",
        misshaped={path: pair for misfit in misfits for path, pair in misfit.misshaped.items()},
    )
