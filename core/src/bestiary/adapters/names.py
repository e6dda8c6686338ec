"""Which parameters of a model the paths in an adapter mean.

An adapter has the paths of the modules that it was trained on, in transformers.  Those are mostly the names of the
checkpoint, which the weight plan knows; where transformers or a converter renamed them, they are the names of our
parameters, or either of the two with other prefixes (`model.language_model.` for `language_model.model.`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from bestiary.adapters.peft import LoraWeights
from bestiary.adapters.placing import Shapes, has_map, place
from bestiary.errors import WeightMismatch, shown
from bestiary.nearest import did_you_mean
from bestiary.weights import Join, Plan, Recipe, Stored

_PREFIXES = frozenset({"model", "language_model", "text_model", "transformer"})
_HALVES = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""What transformers keeps in one parameter of its experts, where checkpoints have a tensor for each expert."""
_OUT_IN = (0, 19, 1)
"""From this version on, PEFT reads a parameter of experts as [experts, out, in]; it was [experts, in, out]."""


@dataclass(frozen=True)
class Change:
    """A low-rank change of some rows of a parameter, or of one expert of it."""

    source: str
    """The tensor of the checkpoint that the adapter means."""
    parameter: str
    expert: int | None
    start: int
    a: torch.Tensor
    b: torch.Tensor
    magnitude: torch.Tensor | None


@dataclass(frozen=True)
class _Use:
    """What a tensor of the checkpoint becomes: a parameter, or one expert of a stack."""

    parameter: str
    expert: int | None
    recipe: Recipe


class Names:
    """The names of one model; `shapes` are those of the tensors in its checkpoint."""

    def __init__(self, plan: Plan, shapes: Shapes) -> None:
        self._plan, self._shapes = plan, shapes
        self._parameters: Mapping[str, tuple[int, ...]] = plan.shapes(lambda name: shapes[name])
        self._uses: dict[str, list[_Use]] = {}
        self._stacks: dict[str, Join] = {}
        for parameter, recipe in plan.recipes.items():
            uses = [_Use(parameter, None, recipe)]
            if isinstance(recipe, Join) and recipe.stacked:
                self._stacks[parameter] = recipe
                uses = [_Use(parameter, expert, part) for expert, part in enumerate(recipe.parts)]
            for use in uses:
                for source in use.recipe.sources():
                    self._uses.setdefault(source, []).append(use)
        self._own = {*plan.recipes, *plan.ties}
        self._plain = [_by_plain_name(names) for names in (self._uses, plan.dropped, self._own)]

    def changes(self, path: str, lora: LoraWeights, version: str | None = None) -> list[Change]:
        """What `lora` of an adapter, written by PEFT of `version`, changes.  Raises WeightMismatch."""
        return self._stacked(path, lora, version) if lora.a.ndim == 3 else self._dense(path, lora)

    def stored(self, path: str) -> str | None:
        """The parameter that is a module's weight as the checkpoint has it; None where a rule changed it."""
        name = self._find(f"{path}.weight")
        name = self._plan.ties.get(name, name)
        uses = self._uses.get(name, [_Use(name, None, Stored(name))])
        return uses[0].parameter if len(uses) == 1 and isinstance(uses[0].recipe, Stored) else None

    # Linear layers

    def _dense(self, path: str, lora: LoraWeights) -> list[Change]:
        name = self._find(f"{path}.weight")
        uses = [] if name in self._plan.ties else self._uses.get(name, [])
        if not uses:
            self._check_shape(path, lora, self._parameters[self._plan.ties.get(name, name)])
            return [Change(name, name, None, 0, lora.a, lora.b, lora.magnitude)]
        if not any(has_map(use.recipe, name) for use in uses):
            self._check_shape(path, lora, self._shapes[name])
        return [
            Change(name, use.parameter, use.expert, found.start, lora.a, found.b, found.magnitude)
            for use in uses
            for found in place(use.recipe, self._shapes, name, lora.b, lora.magnitude)
        ]

    def _find(self, name: str) -> str:
        """A tensor of the checkpoint, or where there is none of this name a parameter of ours."""
        if name in self._plan.ties or name in self._uses:
            return name
        used, dropped, own = (names.get(_plain(name), set()) for names in self._plain)
        found = {name} if name in self._own else used or own
        if name in self._plan.dropped or (dropped and not found):
            raise WeightMismatch(f"The adapter changes {shown(name)}, a part of the model that is not loaded.")
        if len(found) != 1:
            end = "." + ".".join(name.split(".")[-2:])
            near = did_you_mean(name, [known for known in {*self._uses, *self._own} if known.endswith(end)][:1000])
            raise WeightMismatch(f"The model has no {shown(name)}, which the adapter changes. {near}".rstrip())
        return next(iter(found))

    @staticmethod
    def _check_shape(path: str, lora: LoraWeights, shape: Sequence[int]) -> None:
        given = (lora.b.shape[-2], lora.a.shape[-1])
        if given != tuple(shape):
            raise WeightMismatch(
                f"{path} of the adapter is for a weight of shape {list(given)}; the model's has {list(shape)}.",
                misshaped={path: (given, tuple(shape))},
            )

    # Experts

    def _stacked(self, path: str, lora: LoraWeights, version: str | None) -> list[Change]:
        module, _, name = path.rpartition(".")
        halves, experts = _HALVES.get(name, ()), self._experts_of(module)
        stacks = [self._stacks.get(f"{experts}.{part}") for part in halves]
        if not stacks or not all(stack and all(isinstance(part, Stored) for part in stack.parts) for stack in stacks):
            raise WeightMismatch(
                f"The model has no stack of experts {shown(path)} that an adapter can change.",
                fix="merge the adapter into its model with PEFT (merge_and_unload), and load the result",
            )
        count, out, inner = self._parameters[f"{experts}.{halves[0]}"]
        lora = _out_in(lora, len(halves) * out, inner, version)
        self._check_shape(path, lora, (len(halves) * out, inner))
        if len(lora.a) != count:
            raise WeightMismatch(f"{path} of the adapter is for {len(lora.a)} experts; the model has {count}.")
        made = []
        for expert, (a, b) in enumerate(zip(lora.a, lora.b, strict=True)):
            for part, rows in zip(halves, b.split(out), strict=True):
                parameter = f"{experts}.{part}"
                source = self._stacks[parameter].parts[expert].sources()[0]
                made.append(Change(source, parameter, expert, 0, a, rows, None))
        return made

    def _experts_of(self, module: str) -> str | None:
        """Our experts that a module of transformers holds, by its path or by that of its members in the checkpoint."""
        own = [name.removesuffix(".down_proj") for name in self._stacks if name.endswith(".down_proj")]
        if module in own:
            return module
        member = re.compile(rf"{re.escape(module)}\.[0-9]+\..*")
        for experts in own:
            first = self._stacks[f"{experts}.down_proj"].sources()[0]
            if member.fullmatch(first) or _plain(experts) == _plain(module):
                return experts
        return None


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _PREFIXES)


def _by_plain_name(names: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name in names:
        found.setdefault(_plain(name), set()).add(name)
    return found


def _out_in(lora: LoraWeights, out: int, inner: int, version: str | None) -> LoraWeights:
    """The weights for [experts, out, in], whichever way PEFT read the parameter when it made them."""
    given = (lora.b.shape[1], lora.a.shape[2])
    numbers = tuple(int(number) for number in re.findall(r"[0-9]{1,4}", version or "0")[:3])
    if given == (inner, out) and (out != inner or numbers < _OUT_IN):
        return LoraWeights(lora.b.transpose(1, 2), lora.a.transpose(1, 2), lora.scaling)
    return lora
