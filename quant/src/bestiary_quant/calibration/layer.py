"""One layer with its plain weights, or the head: what is to be measured of its inputs, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from bestiary.nn.packed import Packed
from bestiary_quant.calibration.importance import same_input
from bestiary_quant.calibration.methods import GROUPS, METHODS, Method, method_of
from bestiary_quant.calibration.taps import See

Weight = torch.Tensor | Packed
Unit = tuple[str, int | None]
"""What is measured as one: the weight that stands for all with the same input, and which expert of a stack."""


class Measure(Protocol):
    """What looks at the inputs of a weight."""

    def add(self, x: torch.Tensor, expert: int | None = None) -> None:
        """x [T, in] of any float type."""


@dataclass(frozen=True)
class Target:
    """A weight that is to be packed."""

    name: str
    scheme: str
    shape: tuple[int, ...]
    """[out, in], or [experts, out, in]."""
    most: int = GROUPS[0]
    """Columns of a group."""

    @property
    def method(self) -> Method | None:
        """None: a scheme of `making`, or one whose groups do not fit the rows."""
        method = method_of(self.scheme)
        return method if method and method.group(self.shape[-1]) else None

    @property
    def group(self) -> int:
        return (self.method and self.method.group(self.shape[-1], self.most)) or self.shape[-1]

    @property
    def experts(self) -> int | None:
        return self.shape[0] if len(self.shape) == 3 else None

    @property
    def units(self) -> tuple[Unit, ...]:
        first = same_input(self.name)
        return ((first, None),) if self.experts is None else tuple((first, number) for number in range(self.experts))

    def by(self, kind: str) -> bool:
        return self.method is not None and self.method.kind == kind


@dataclass(frozen=True)
class Settings:
    """How the methods work."""

    symmetric: bool = False
    """GPTQ without zeros."""
    act_order: bool = False
    """GPTQ begins with the columns of the largest inputs; of matrices only, for a stack has one order for all."""
    clip: bool = True
    """AWQ shrinks ranges."""


@dataclass
class Layer:
    """The weights of a layer on their way from plain to packed."""

    targets: tuple[Target, ...]
    weights: dict[str, Weight]
    """All of its parameters as they stand in the network, plain; folding changes them."""
    source: Callable[[str], torch.Tensor]
    """The numbers of a weight that was not changed, as exactly as they are known."""
    show: Callable[[Mapping[str, See]], None]
    """Runs the text through the layer, and shows the inputs of weights to functions, by name."""
    put: Callable[[str, Weight], None]
    settings: Settings = field(default_factory=Settings)

    def measure(self, measures: Sequence[tuple[Unit, Measure]]) -> None:
        """Run the text once.  A measure of (weight, None) sees the inputs of all experts, and is told which."""
        by_weight: dict[str, list[tuple[int | None, Measure]]] = {}
        for (name, expert), measure in measures:
            by_weight.setdefault(name, []).append((expert, measure))
        see = {}
        for target in self.targets:  # one of those with the same input is enough
            if watching := by_weight.pop(same_input(target.name), None):
                see[target.name] = _shown(watching)
        if see:
            self.show(see)


def _shown(watching: Sequence[tuple[int | None, Measure]]) -> See:
    def see(x: torch.Tensor, expert: int | None) -> None:
        for wanted, measure in watching:
            if wanted is None or wanted == expert:
                measure.add(x, expert)

    return see


def targets_of(
    scheme_of: Mapping[str, str | None], names: Iterable[str], shape: Callable[[str], tuple[int, ...]]
) -> tuple[Target, ...]:
    """Those of `names` that are to be packed; what is to be AWQ in groups that fit all such weights of `scheme_of`."""
    awq = [shape(name)[-1] for name, scheme in scheme_of.items() if _is_awq(scheme)]
    fitting = [group for columns in awq if (group := METHODS["awq4"].group(columns))]
    most = min(fitting, default=GROUPS[0])
    return tuple(
        Target(name, scheme, shape(name), most if _is_awq(scheme) else GROUPS[0])
        for name in names
        if (scheme := scheme_of.get(name)) is not None
    )


def _is_awq(scheme: str | None) -> bool:
    method = method_of(scheme)
    return method is not None and method.kind == "awq"
