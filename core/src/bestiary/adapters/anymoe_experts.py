"""Experts of an AnyMoE model: a model's feed-forward blocks, with the weights of other checkpoints or with LoRA."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from bestiary.adapters.anymoe_config import LoraExperts
from bestiary.adapters.laying import Base, lay
from bestiary.adapters.names import Names
from bestiary.adapters.peft import PeftAdapter
from bestiary.adapters.step import Part
from bestiary.building import Pack, fold
from bestiary.errors import OptionError, WeightMismatch, shown
from bestiary.nn import Linear
from bestiary.protocols import Checkpoint
from bestiary.records import Progress
from bestiary.weights import Plan


def fine_tuned(
    base: Base,
    blocks: Mapping[int, str],
    checkpoint: Checkpoint,
    *,
    pack: Pack | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[int, nn.Module]:
    """Blocks like those at these paths of a model, by layer, with the weights of another checkpoint.

    Its tensors have the names of the model's own checkpoint, and go the same way through the weight plan.  Raises
    WeightMismatch that lists everything that is absent or has another shape, before data is read.
    """
    recipes = {
        name: recipe
        for name, recipe in base.plan.recipes.items()
        if any(name.startswith(f"{path}.") for path in blocks.values())
    }
    present = frozenset(checkpoint.names())
    missing = [source for recipe in recipes.values() for source in recipe.sources() if source not in present]
    if missing:
        listed = ", ".join(name for name, _ in fold(missing)[:10])
        raise WeightMismatch(
            f"The expert's checkpoint lacks {listed}.",
            where=checkpoint.origin,
            fix="give a checkpoint of the same architecture; for LoRA adapters there is expert_type LoraExperts",
            missing=missing,
        )
    plan = Plan(recipes)
    shapes, wanted = plan.shapes(checkpoint.shape), plan.shapes(lambda name: base.shapes[name])
    misshaped = {name: (shapes[name], wanted[name]) for name in wanted if shapes[name] != wanted[name]}
    if misshaped:
        name, (given, due) = next(iter(misshaped.items()))
        raise WeightMismatch(
            f"{name} of the expert has the shape {list(given)}; the model's has {list(due)}"
            + (f", and {len(misshaped) - 1} more differ." if len(misshaped) > 1 else "."),
            where=checkpoint.origin,
            misshaped=misshaped,
        )
    made = {layer: _sharing(base.model.get_submodule(path)) for layer, path in blocks.items()}
    done, total = 0, len(recipes)
    for layer, path in blocks.items():
        for name in [name for name in recipes if name.startswith(f"{path}.")]:
            target = torch.empty(wanted[name], dtype=base.dtype, device="cpu" if pack else base.device)
            recipes[name].fill(target, checkpoint.read)
            _put(made[layer], name.removeprefix(f"{path}."), target, base, pack)
            checkpoint.release()
            done += 1
            if progress:
                progress(Progress("experts", done, total, name))
    return made


def lora_experts(
    base: Base, blocks: Mapping[int, str], adapter: PeftAdapter, kind: LoraExperts, prefix: str, mlp: str
) -> dict[int, nn.Module]:
    """The blocks at these paths, by layer, as an adapter changes them; they share the weights of the model.

    Raises WeightMismatch where the adapter lacks a target in a layer or does not fit, OptionError where `kind` is not
    what it was trained with.
    """
    wanted = {f"{prefix}.{layer}.{mlp}.{target}": layer for layer in blocks for target in kind.target_modules}
    missing = [path for path in wanted if path not in adapter.weights]
    if missing:
        listed = ", ".join(name for name, _ in fold(missing)[:10])
        raise WeightMismatch(
            f"The adapter does not change {listed}.",
            where=adapter.origin,
            fix="check target_modules, layers, prefix and mlp against the adapter",
            missing=missing,
        )
    weights = {path: adapter.weights[path] for path in wanted}
    for path, lora in weights.items():
        if lora.rank != kind.rank or abs(lora.scaling * kind.rank - kind.alpha) > 1e-6 * abs(kind.alpha):
            raise OptionError(
                f"expert_type has the rank {kind.rank} and alpha {kind.alpha:g}; "
                f"{path} was trained with {lora.rank} and {lora.scaling * lora.rank:g}.",
                where=adapter.origin,
                fix="give the r and lora_alpha of its adapter_config.json",
            )
    laid = lay(replace(adapter, weights=weights), base, Names(base.plan, base.shapes))
    made: dict[int, nn.Module] = {}
    for layer, path in blocks.items():
        made[layer] = block = _sharing(base.model.get_submodule(path))
        for name, module in block.named_modules():
            if isinstance(module, Linear) and (parts := laid.linears.get(f"{path}.{name}")):
                module.adapter = Always(parts)
    if laid.experts:
        raise WeightMismatch(f"The adapter changes {shown(next(iter(laid.experts)))}, which are experts already.")
    return made


class Always:
    """Changes of a linear layer that all rows have: what stands in `Linear.adapter` of an expert."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for part in self._parts:
            part.change(x, y, slice(None))
        return y


def _sharing(block: nn.Module) -> nn.Module:
    """A copy of the modules over the same weights."""
    shared: list[object] = [*block.parameters(), *block.buffers()]
    for name, module in block.named_modules():
        if getattr(module, "adapter", None) is not None:
            raise OptionError(
                f"{name} of a block is adapted already.", fix="make the experts before adapters are loaded"
            )
        shared.append(getattr(module, "packed", None))
    return copy.deepcopy(block, {id(each): each for each in shared if each is not None})


def _put(block: nn.Module, name: str, tensor: torch.Tensor, base: Base, pack: Pack | None) -> None:
    path, _, attribute = name.rpartition(".")
    module = block.get_submodule(path)
    parameter = nn.Parameter(tensor.to(base.device), requires_grad=False)
    if isinstance(module, Linear) and attribute == "weight":
        module.hold((pack(name, tensor) if pack else None) or parameter)
    else:
        setattr(module, attribute, parameter)
