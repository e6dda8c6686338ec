"""The adapters of an image pipeline: which were loaded, and which count in the request at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import nn

from bestiary.diffusion.lora import Lora, LoraPart, read_lora
from bestiary.errors import OptionError, shown
from bestiary.identified import Identified
from bestiary.nearest import did_you_mean
from bestiary.nn import Linear
from bestiary.parts import FoundPart

Active = tuple[tuple[str, float], ...]
"""Aliases with their weights: what makes one request's networks other than another's."""


def chosen(wanted: Any, known: Sequence[str]) -> Active:
    """The adapters that a request names, each with its weight.  Raises OptionError."""
    if wanted is None:
        return ()
    weights = (
        wanted if isinstance(wanted, Mapping) else dict.fromkeys([wanted] if isinstance(wanted, str) else wanted, 1.0)
    )
    for name, weight in weights.items():
        if name not in known:
            fix = did_you_mean(str(name), known) or f"loaded are {', '.join(known) or 'none'}"
            raise OptionError(
                f"No adapter is called {shown(name)}.", fix=f"{fix}; bestiary.load(..., adapters={{...}})"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight):
            raise OptionError(f"The weight of the adapter {name} is {shown(weight)}; a number is due.")
    return tuple((name, float(weight)) for name, weight in weights.items() if weight)


class ImageAdapters:
    """LoRA adapters by alias."""

    def __init__(self, found: Mapping[str, FoundPart], given: Mapping[str, str], whole: Identified) -> None:
        if not isinstance(given, Mapping) or not all(isinstance(id, str) for id in given.values()):
            raise OptionError(f"adapters is {shown(given)}; a mapping from aliases to ids is due.")
        networks = {name: part.network for name, part in found.items() if part.network is not None}
        self._loras: dict[str, Lora] = {
            name: read_lora(whole.repository_of(id), networks) for name, id in given.items()
        }
        self._weights: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._loras)

    def attach(self, part: str, network: nn.Module) -> None:
        """Put the adapters on the layers of a part, once for each time that it comes."""
        changes: dict[str, list[tuple[str, LoraPart]]] = {}
        for alias, lora in self._loras.items():
            for path, parts in lora.get(part, {}).items():
                changes.setdefault(path, []).extend((alias, each) for each in parts)
        for path, found in changes.items():
            layer = network.get_submodule(path)
            assert isinstance(layer, Linear)
            if layer.adapter is None:
                layer.adapter = _Sum(found, self._weights)

    @contextmanager
    def active(self, weights: Active) -> Iterator[Active]:
        """These adapters count while the context lasts."""
        self._weights.update(weights)
        try:
            yield weights
        finally:
            self._weights.clear()


class _Sum:
    """What the adapters add that count: x A' B' of each, times its weight (`bestiary.nn.linear.LinearAdapter`)."""

    def __init__(self, parts: Sequence[tuple[str, LoraPart]], weights: Mapping[str, float]) -> None:
        self._parts, self._weights = parts, weights
        self._moved: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for place, (alias, part) in enumerate(self._parts):
            weight = self._weights.get(alias)
            if weight is None:
                continue
            a, b = self._here(place, part, x)
            y = y + (x.reshape(-1, x.shape[-1]) @ a.T @ b.T).view(y.shape) * weight
        return y

    def _here(self, place: int, part: LoraPart, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key = place, x.device, x.dtype
        if key not in self._moved:
            self._moved[key] = part.a.to(x.device, x.dtype), part.b.to(x.device, x.dtype)
        return self._moved[key]
