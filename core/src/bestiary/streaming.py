"""A network that is larger than the memory: each layer has its weights only while it runs.

They are read from the memory-mapped files of the checkpoint, as it has them; while one layer computes, the system reads
ahead the pages of the next.  So the memory that is needed is that of the largest layer, and of what is in no layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bestiary.errors import InvalidPlugin
from bestiary.nn import Linear
from bestiary.records import Progress

if TYPE_CHECKING:
    from bestiary.loading import WeightStream
    from bestiary.pulling import Puller


_ALIGNED = 64
"""Bytes: a line of the cache."""


class StreamedModel:
    """A network whose layers come and go; a context manager that closes the files."""

    def __init__(self, weights: AbstractContextManager[WeightStream]) -> None:
        self._held = ExitStack()
        try:
            puller = self._held.enter_context(weights).puller
            self.model: nn.Module = puller.model
            layers = _layers(puller)
            _bring_rest(puller, {name for names in layers.values() for name in names})
            order = list(layers)
            # One piece of memory, in which each layer's weights stand in turn.
            most = max((_nbytes(puller, names) for names in layers.values()), default=0)
            memory = torch.empty(most, dtype=torch.uint8, device=puller.device)
            for place, path in enumerate(order):
                following = layers[order[(place + 1) % len(order)]]
                _Layer(puller, memory, layers[path], following).watch(self.model.get_submodule(path))
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        """Close the files; the network cannot run any more."""
        self._held.close()


def _layers(puller: Puller) -> dict[str, list[str]]:
    """The parameters of each layer, by its path: layers are the members of the outermost lists of modules."""
    paths = sorted(_listed(puller.model, ""), key=len, reverse=True)
    found: dict[str, list[str]] = {path: [] for path in _listed(puller.model, "")}
    for name in puller.names:
        owner = next((path for path in paths if name.startswith(f"{path}.")), None)
        if owner is not None:
            found[owner].append(name)
    return {path: names for path, names in found.items() if names}


def _listed(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from (f"{prefix}{name}.{place}" for place in range(len(child)))
        else:
            yield from _listed(child, f"{prefix}{name}.")


def _nbytes(puller: Puller, names: list[str]) -> int:
    return sum(_size(puller, name) for name in names)


def _size(puller: Puller, name: str) -> int:
    """Bytes of a parameter, so that the next one is aligned; of one that stays packed nothing."""
    if puller.held(name) is not None:
        return 0
    length = prod(puller.shape(name)) * puller.dtype.itemsize
    return -(-length // _ALIGNED) * _ALIGNED


def _bring_rest(puller: Puller, in_layers: set[str]) -> None:
    rest = [name for name in puller.names if name not in in_layers]
    total, done = sum(puller.nbytes(name) for name in rest), 0
    with torch.no_grad():
        for name in rest:
            puller.put(name, puller.kept(name))
            puller.release()
            done += puller.nbytes(name)
            if puller.progress:
                puller.progress(Progress("load", done, total, name))
        puller.finish()


class _Layer:
    """The coming and going of one layer's weights."""

    def __init__(self, puller: Puller, memory: torch.Tensor, names: list[str], following: list[str]) -> None:
        self._puller, self._names, self._following = puller, names, following
        # Made once: objects that come and go would leave holes in the memory of the process.
        self._places: dict[str, nn.Parameter | None] = {}
        self._nothing = {name: puller.hollow(name) for name in names}
        start = 0
        for name in names:
            size = _size(puller, name)
            length = prod(puller.shape(name)) * puller.dtype.itemsize
            place = memory[start : start + length].view(puller.dtype).view(puller.shape(name)) if size else None
            self._places[name] = None if place is None else nn.Parameter(place, requires_grad=False)
            start += size
        self._here = False

    def watch(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self._come)
        module.register_forward_hook(self._go, always_call=True)
        for path, inner in module.named_modules():
            # A linear layer refuses by itself, and one with a hook could not be computed together with others.
            if inner is not module and not isinstance(inner, Linear):
                inner.register_forward_pre_hook(partial(self._check, path))

    def _come(self, *_: Any) -> None:
        puller = self._puller
        with torch.no_grad():
            for name, place in self._places.items():
                puller.put(name, puller.kept(name) if place is None else puller.plain(name, place), as_read=True)
                puller.release()
        self._here = True
        puller.foresee(self._following)

    def _check(self, path: str, *_: Any) -> None:
        # torch computes nonsense from weights without data, and says nothing.
        if not self._here:
            raise InvalidPlugin(
                f"{path} of a layer was called while the layer was not running, so its weights were not there.",
                fix="a layer is to use its modules in its own forward alone; load without offload until then",
            )

    def _go(self, *_: Any) -> None:
        self._here = False
        for name, nothing in self._nothing.items():
            self._puller.put(name, nothing)
