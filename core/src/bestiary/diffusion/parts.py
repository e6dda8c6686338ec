"""The networks of a pipeline: which of them are in memory, and when.

    offload=None       all, from the load on
    offload="parts"    of the large ones, one at a time: the text encoder leaves before the denoiser comes
    offload="layers"   of the large ones, one layer at a time, read from the files while it runs

A network is small if it has less than a tenth of the largest one's bytes; it comes with its first use, and stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bestiary.building import build_empty, make_plan, resident_bytes
from bestiary.errors import OptionError, shown
from bestiary.identified import Identified
from bestiary.opening import weight_headers
from bestiary.packing import stated_quantization
from bestiary.parts import FoundPart, missing_part
from bestiary.records import Packing, Part
from bestiary.streaming import StreamedModel

if TYPE_CHECKING:
    from bestiary.loading import LoadedModel, Pull

log = logging.getLogger("bestiary.diffusion")
OFFLOADS = (None, "parts", "layers")
_SMALL = 0.1
"""Of the largest network."""


class Parts:
    """The parts of one pipeline; not for several threads at once."""

    def __init__(
        self, whole: Identified, found: Mapping[str, FoundPart], pull: Pull, offload: str | None, quant: Any
    ) -> None:
        """`quant` is what `load` was told: the scheme of all parts that are meant to be packed, or by part."""
        if offload not in OFFLOADS:
            raise OptionError(
                f"offload is {shown(offload)}.", fix='leave it out for all in memory, or take "parts" or "layers"'
            )
        self.whole, self.found, self.offload = whole, found, offload
        self._pull, self._quants = pull, _quant_by_part(whole, quant)
        if offload == "layers" and any(self._quants.values()):
            raise OptionError(
                'offload="layers" reads weights as the files have them, so quant has no place beside it.',
                fix='offload="parts", or load a file that is packed already, such as a .gguf',
            )
        self._here: dict[str, LoadedModel | StreamedModel] = {}
        self._large = frozenset(self._large_ones()) if offload else frozenset()
        self.packing: dict[str, Packing] = {}
        """What became of each weight that was packed, by the name of the part and of the parameter."""
        self.attach: Callable[[str, nn.Module], None] = lambda name, network: None
        """Called with each part that is about to be used."""
        if offload is None:
            for name, each in found.items():
                if each.network is not None:
                    self._bring(name)

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def require(self, name: str) -> FoundPart:
        """Where a part lies.  Raises ModelNotFound with what to do where it is missing."""
        if name not in self.found:
            raise missing_part(self.whole, self._part(name))
        return self.found[name]

    @contextmanager
    def use(self, name: str) -> Iterator[Any]:
        """The network of a part, in memory while the context lasts.  Raises ModelNotFound for a missing one."""
        self.require(name)
        if name not in self._here:
            if name in self._large:
                self._leave(self._large)
            self._bring(name)
        network = self._here[name].model
        self.attach(name, network)
        with torch.inference_mode():
            yield network

    def placed(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on the device, and in the type of numbers, with which a part that is here computes."""
        plain = [each for each in self._here[name].model.parameters() if not each.is_meta and each.is_floating_point()]
        return tensor.to(plain[0].device, plain[0].dtype) if plain else tensor

    def nbytes(self) -> int:
        """What the networks take that are in memory."""
        return sum(resident_bytes(each.model) for each in self._here.values())

    def close(self) -> None:
        """Free all of them."""
        self._leave(frozenset(self._here))

    def _part(self, name: str) -> Part:
        return next(part for part in self.whole.architecture.parts if part.name == name)

    def _bring(self, name: str) -> None:
        network = self.found[name].network
        assert network is not None
        log.info("%s comes", name)
        if self.offload == "layers" and name in self._large:
            self._here[name] = StreamedModel(self._pull.stream(network))
            return
        request = replace(self._pull.packing, quant=self._quants.get(name))
        if not self._part(name).packs and name not in self._quants:
            request = replace(request, topology=None, organization=None, imatrix=None, calibration_file=None)
        loaded = self._pull(network, packing=request)
        if loaded.packing is not None:
            self.packing.update((f"{name}.{each}", made) for each, made in loaded.packing.assigned.items())
        self._here[name] = loaded

    def _leave(self, names: frozenset[str]) -> None:
        for name in names & self._here.keys():
            log.info("%s leaves", name)
            gone = self._here.pop(name)
            if isinstance(gone, StreamedModel):
                gone.close()

    def _large_ones(self) -> list[str]:
        """The parts that are to come and go; all are planned, so that what does not fit is told at the load."""
        sizes = {}
        for name, each in self.found.items():
            if each.network is None:
                continue
            with closing(weight_headers(each.network, self.whole.registry)) as headers:
                if stated_quantization(each.network.config, each.repository, self.whole.registry) is None:
                    empty = build_empty(each.network.architecture, each.network.config)
                    make_plan(each.network.architecture, each.network.config, empty, headers)
                sizes[name] = sum(headers.nbytes(tensor) for tensor in headers.names())
        return [name for name, size in sizes.items() if size >= _SMALL * max(sizes.values())]


def _quant_by_part(whole: Identified, quant: Any) -> dict[str, Any]:
    parts = whole.architecture.parts
    if isinstance(quant, Mapping):
        known = [part.name for part in parts if part.architectures]
        for name in quant:
            if name not in known:
                raise OptionError(f"quant names the part {shown(name)}.", fix=f"parts are {', '.join(known)}")
        return dict(quant)
    return {part.name: quant for part in parts if part.packs} if quant is not None else {}
