"""Seeing what the weights of a running network are multiplied with.

A tap is a function in an instance's own dictionary, in front of the method of its class.  It is set and taken away in
one step that no other thread can see half of, so that a network may be tapped while it runs; and a network without
taps does nothing more than one that never had any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import nn

from bestiary.nn import Experts, Linear
from bestiary.pulling import held_in

See = Callable[[torch.Tensor, int | None], None]
"""(x [T, in], which of the experts multiplies it, or None): called before the product."""


def weights(model: nn.Module) -> Iterator[tuple[str, nn.Module, int, int | None]]:
    """Of each weight that can be tapped the parameter's name, the module, its columns, and how many experts it has."""
    for path, module in model.named_modules():
        front = f"{path}." if path else ""
        if isinstance(module, Linear):
            yield f"{front}weight", module, held_in(module, "weight").shape[1], None
        elif isinstance(module, Experts):
            for name in module.projections:
                yield f"{front}{name}", module, held_in(module, name).shape[2], module.count


class Taps:
    """The taps of one observer on a network."""

    def __init__(self, model: nn.Module, see: Mapping[str, See]) -> None:
        """`see` by the names of `weights`; the others are not tapped."""
        self._see: dict[nn.Module, dict[str, See]] = {}
        for name, module, *_ in weights(model):
            if name in see:
                self._see.setdefault(module, {})[name.rpartition(".")[2]] = see[name]

    def open(self) -> None:
        """Calls of the network are seen from the next one on."""
        for module, see in self._see.items():
            if isinstance(module, Linear):
                module.__dict__["forward"] = partial(_linear, module, see["weight"])
            elif isinstance(module, Experts):
                module.__dict__["_project"] = partial(_project, module, see)

    def close(self) -> None:
        """Calls that have begun may still be seen."""
        for module in self._see:
            for name in ("forward", "_project"):
                module.__dict__.pop(name, None)


def _linear(module: Linear, see: See, x: torch.Tensor) -> torch.Tensor:
    _seen(see, x.reshape(-1, x.shape[-1]), None)
    return type(module).forward(module, x)


def _project(
    module: Experts, see: Mapping[str, See], name: str, expert: int, x: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    if name in see:
        _seen(see[name], x, expert)
    return type(module)._project(module, name, expert, x, rows)


def _seen(see: See, x: torch.Tensor, expert: int | None) -> None:
    # A CUDA graph would repeat what is recorded of an observer without calling it.
    if not (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        see(x, expert)
