"""The networks of a pipeline: which of them are in memory, and when.

    offload=None       all, from the load on
    offload="parts"    of the large ones, one at a time: the text encoder leaves before the denoiser comes
    offload="layers"   of the large ones, one layer at a time, read from the files while it runs

A network is small if it has less than a tenth of the largest one's bytes; it comes with its first use, and stays.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bestiary.building import build_empty, make_plan, resident_bytes
from bestiary.errors import OptionError, shown
from bestiary.identified import Identified
from bestiary.opening import weight_headers
from bestiary.packing import stated_quantization
from bestiary.parts import SMALL, FoundPart, check_quant, missing_part, packing_of
from bestiary.records import Packing, Part
from bestiary.streaming import StreamedModel

if TYPE_CHECKING:
    from bestiary.loading import LoadedModel, Pull

log = logging.getLogger("bestiary.loading")
OFFLOADS = (None, "parts", "layers")


class Networks:
    """The parts of one pipeline; not for several threads at once."""

    def __init__(self, whole: Identified, found: Mapping[str, FoundPart], pull: Pull, offload: str | None) -> None:
        if offload not in OFFLOADS:
            raise OptionError(
                f"offload is {shown(offload)}.", fix='leave it out for all in memory, or take "parts" or "layers"'
            )
        self.whole, self.found, self.offload = whole, found, offload
        self._pull = pull
        check_quant(whole.architecture, pull.packing.quant)
        if offload == "layers" and pull.packing:
            raise OptionError(
                'offload="layers" reads weights as the files have them, so quant has no place beside it.',
                fix='offload="parts", or load a file that is packed already, such as a .gguf',
            )
        self._here: dict[str, LoadedModel | StreamedModel] = {}
        self._used: Counter[str] = Counter()
        self._large = frozenset(self._large_ones()) if offload else frozenset()
        self.packing: dict[str, Packing] = {}
        """What became of each weight that was packed, by the name of the part and of the parameter."""
        self.attach: Callable[[str, nn.Module], None] = lambda name, network: None
        """Called with each part that is about to be used."""

    def load(self) -> None:
        """Bring what is to stay; called once all that the small files can tell is known to be right."""
        if self.offload is None:
            for name, each in self.found.items():
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
                self._leave(frozenset(each for each in self._large if not self._used[each]))
            self._bring(name)
        network = self._here[name].model
        self.attach(name, network)
        self._used[name] += 1
        try:
            with torch.inference_mode():
                yield network
        finally:
            self._used[name] -= 1

    def placed(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on the device, and of numbers also in the type, with which a part that is here computes."""
        plain = [each for each in self._here[name].model.parameters() if not each.is_meta and each.is_floating_point()]
        if not plain:
            return tensor
        return tensor.to(plain[0].device, plain[0].dtype if tensor.is_floating_point() else tensor.dtype)

    @property
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
        loaded = self._pull(network, packing=packing_of(self._part(name), self._pull.packing))
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
        return [name for name, size in sizes.items() if size >= SMALL * max(sizes.values())]
