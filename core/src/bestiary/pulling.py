"""The parameters of a network, made one at a time from a checkpoint.

Whoever consumes them, a network that is being loaded or a file that is being written, needs the memory of what it keeps
and of one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bestiary.nn import Embedding, Experts, Linear
from bestiary.nn.operations import PLAIN, Operations, fit
from bestiary.nn.packed import Packed
from bestiary.protocols import Checkpoint, PackingPlan
from bestiary.records import Packing, Progress, Site
from bestiary.weights import Plan

Place = tuple[str, str]
"""The path of a module, and one of its parameters."""


class Puller:
    """Makes the parameters of a network by a plan, and puts them there."""

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        checkpoint: Checkpoint,
        *,
        device: torch.device,
        dtype: torch.dtype,
        into: nn.Module | None = None,
        progress: Callable[[Progress], None] | None = None,
        operations: Operations = PLAIN,
    ) -> None:
        """`model` is empty; `into` is one like it that is filled in its stead, such as one that runs already.

        `device` and `dtype` are those of parameters that are not packed.  The network is fitted with `operations`.
        """
        self.model, self.device, self.dtype, self.operations = into or model, device, dtype, operations
        self.names = tuple(plan.recipes)
        self.ties: Mapping[str, str] = plan.ties
        self._plan, self._checkpoint, self.progress = plan, checkpoint, progress
        self._places = _places(model)
        self._shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        self._packed: Callable[[str], Packed | None] = getattr(checkpoint, "packed", lambda name: None)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a parameter, whether it was made already or not."""
        return self._shapes[name]

    def nbytes(self, name: str) -> int:
        """What it takes in the checkpoint."""
        return sum(self._checkpoint.nbytes(source) for source in self._plan.recipes[name].sources())

    def read(self, name: str) -> torch.Tensor:
        """Plain numbers on the CPU, in the type of the checkpoint; never written to, for they may view the file."""
        return self._plan.recipes[name].make(self._checkpoint.read)

    def plain(self, name: str, target: torch.Tensor | None = None) -> torch.Tensor:
        """The parameter in the type and on the device of the model, in memory of its own or in that of `target`."""
        if target is None:
            target = torch.empty(self.shape(name), dtype=self.dtype, device=self.device)
        self._plan.recipes[name].fill(target, self._checkpoint.read)
        return target

    def held(self, name: str) -> Packed | None:
        """The parameter as the checkpoint packs it; None where it has plain numbers, or can only be held so."""
        path, attribute = self._places[name][0]
        if not can_hold(self.model.get_submodule(path), attribute):
            return None
        held = self._plan.recipes[name].packed(self._packed)
        return None if held is None else held.to(self.device)

    def kept(self, name: str) -> torch.Tensor | Packed:
        """The parameter as the checkpoint has it: packed where it is, else plain."""
        held = self.held(name)
        return self.plain(name) if held is None else held

    def put(self, name: str, weight: torch.Tensor | Packed, *, as_read: bool = False) -> None:
        """Into the network, in place of what stood there; `as_read` says that it is what the checkpoint has."""
        if not isinstance(weight, torch.Tensor):
            identity = getattr(self._checkpoint, "identity", None) if as_read else None
            weight = self.operations.adopt(weight, None if identity is None else f"{identity}/{name}")
        self._put(self._places[name], weight)

    def hollow(self, name: str) -> nn.Parameter:
        """What stands for a parameter that is not there: it has a shape and no data."""
        return nn.Parameter(torch.empty(self.shape(name), dtype=self.dtype, device="meta"), requires_grad=False)

    def foresee(self, names: Iterable[str]) -> None:
        """These parameters will be read next: files that can read ahead do so."""
        prefetch = getattr(self._checkpoint, "prefetch", None)
        if prefetch is not None:
            prefetch([source for name in names for source in self._plan.recipes[name].sources()])

    def release(self) -> None:
        """Give back the pages of files that were read.  Raises CheckpointError if one changed."""
        self._checkpoint.release()

    def weights(self, plan: PackingPlan | None) -> Iterator[tuple[str, torch.Tensor | Packed]]:
        """Every parameter, as `plan` packs it or as the checkpoint has it, with progress by bytes of the checkpoint."""
        total, done = sum(self.nbytes(name) for name in self.names), 0
        made = plan.weights(self) if plan is not None else ((name, self.kept(name)) for name in self.names)
        for name, weight in made:
            yield name, weight
            self.release()
            done += self.nbytes(name)
            if self.progress:
                self.progress(Progress("load", done, total, name))

    def finish(self) -> None:
        """What shares the tensors of others, and the buffers: once everything else stands in the network."""
        for target, source in self.ties.items():
            path, attribute = self._places[source][0]
            self._put(self._places[target], held_in(self.model.get_submodule(path), attribute))
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self.device))
        fit(self.model, self.operations)

    def _put(self, places: list[Place], weight: Any) -> None:
        if isinstance(weight, torch.Tensor) and not isinstance(weight, nn.Parameter):
            weight = nn.Parameter(weight, requires_grad=False)
        for path, attribute in places:
            module = self.model.get_submodule(path)
            if isinstance(module, Embedding) and can_hold(module, attribute):
                module.hold(weight, self.dtype)
            elif isinstance(module, Experts) and can_hold(module, attribute):
                module.hold(attribute, weight)
            elif isinstance(module, Linear) and can_hold(module, attribute):
                module.hold(weight)
            else:
                setattr(module, attribute, weight)


@dataclass(frozen=True)
class Alike:
    """A `PackingPlan` by which one function packs every linear layer, or leaves it plain."""

    assigned: Mapping[str, Packing]
    pack: Callable[[torch.Tensor], Packed | None]

    def weights(self, puller: Puller) -> Iterator[tuple[str, torch.Tensor | Packed]]:
        for name in puller.names:
            packed = self.pack(puller.read(name)) if name in self.assigned else None
            yield name, puller.kept(name) if packed is None else packed.to(puller.device)


def pull(puller: Puller, plan: PackingPlan | None = None) -> None:
    """Fill the network, so that the memory that a load needs is the loaded model and one tensor."""
    with torch.no_grad():
        for name, weight in puller.weights(plan):
            puller.put(name, weight, as_read=plan is None)
        puller.finish()


def sites(model: nn.Module, plan: Plan, checkpoint: Checkpoint) -> tuple[Site, ...]:
    """The weights of an empty network that can be packed, in the order of the plan."""
    places = _places(model)
    heads = {plan.ties.get(name, name) for name in places if name.endswith("lm_head.weight")}
    made = []
    for name, recipe in plan.recipes.items():
        path, attribute = places[name][0]
        module = model.get_submodule(path)
        # Eyes and ears are a small part of a model, and see worse in fewer bits.
        if can_hold(module, attribute) and not path.startswith("media."):
            kinds = {checkpoint.dtype(source) for source in recipe.sources()}
            stored = kinds.pop() if len(kinds) == 1 else "mixed"
            shape = tuple(getattr(module, attribute).shape)
            made.append(Site(name, shape, "head" if name in heads else _role(module), stored))
    return tuple(made)


def can_hold(module: nn.Module, attribute: str) -> bool:
    """Whether a packed weight may stand in place of this parameter."""
    if isinstance(module, Experts):
        return attribute in module.projections
    return isinstance(module, Linear | Embedding) and attribute == "weight"


def held_in(module: nn.Module, attribute: str) -> Any:
    """What stands in place of a parameter: a packed weight, or the parameter itself."""
    packed = getattr(module, "packed", None)
    held = packed.get(attribute) if isinstance(packed, dict) else packed if attribute == "weight" else None
    return getattr(module, attribute) if held is None else held


def _role(module: nn.Module) -> str:
    return "experts" if isinstance(module, Experts) else "embedding" if isinstance(module, Embedding) else "linear"


def _places(model: nn.Module) -> dict[str, list[Place]]:
    """Where each parameter stands, by name; a network that shares one has several places for it."""
    places: dict[str, list[Place]] = {}
    same: dict[int, list[Place]] = {}
    for path, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            places[f"{path}.{attribute}" if path else attribute] = found = same.setdefault(id(parameter), [])
            found.append((path, attribute))
    return places
