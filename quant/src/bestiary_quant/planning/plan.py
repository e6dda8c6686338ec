"""The plan of a model's packing: judged from shapes, printed by `bestiary inspect`, carried out while weights load."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from bestiary.config import Config
from bestiary.errors import OptionError
from bestiary.placement import free_memory
from bestiary.records import Packing, PackingRequest, Site
from bestiary_quant.calibration.methods import GROUPS, method_of
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack
from bestiary_quant.making.pack import fitting, pack, packed_bytes, tell
from bestiary_quant.making.schemes import SCHEMES
from bestiary_quant.packed import PackedMatrix, PackedStack
from bestiary_quant.planning.choosing import choose
from bestiary_quant.planning.topology import Topology, read_topology

if TYPE_CHECKING:
    from bestiary.nn.packed import Packed
    from bestiary.pulling import Puller

log = logging.getLogger("bestiary_quant.planning")
SHARE = 0.7
"""Of the free memory that `quant="auto"` leaves to weights; caches and steps have the rest."""
_OURS = (PackedMatrix, PackedStack, CodedMatrix, CodedStack)


@dataclass(frozen=True)
class QuantPlan:
    """A `bestiary.protocols.PackingPlan`."""

    assigned: Mapping[str, Packing]
    request: PackingRequest
    config: Config

    def weights(self, puller: Puller) -> Iterator[tuple[str, torch.Tensor | Packed]]:
        """Every parameter, packed as it is assigned; layer by layer where activations of a text are needed."""
        _tell_others(self.assigned)
        schemes = {name: packing.scheme for name, packing in self.assigned.items()}
        if self.request.calibration_file is not None:
            from bestiary_quant.calibration.load import calibrated_weights

            yield from calibrated_weights(schemes, self.request, self.config, puller, puller.progress)
            return
        importance = self._importance(puller)
        for name in puller.names:
            yield name, self._made(puller, name, schemes.get(name), importance.get(name))

    def _importance(self, puller: Puller) -> Mapping[str, torch.Tensor]:
        """Of the weights that are packed with regard to it."""
        if self.request.imatrix is None:
            return {}
        from bestiary_quant.calibration.load import importance_of

        weighed = [name for name, packing in self.assigned.items() if _weighs(packing)]
        return importance_of(self.request.imatrix, {name: puller.shape(name) for name in weighed})

    def _made(
        self, puller: Puller, name: str, scheme: str | None, importance: torch.Tensor | None
    ) -> torch.Tensor | Packed:
        if scheme is None:
            return puller.kept(name)
        held = puller.held(name)
        if isinstance(held, PackedMatrix | PackedStack) and held.kind is SCHEMES[scheme].kind:
            return held
        source: Any = held if isinstance(held, _OURS) else puller.read(name)
        made = pack(source, scheme, importance, name=name, report=tell, between=puller.release)
        return puller.kept(name) if made is None else made.to(puller.device)


def plan(request: PackingRequest, sites: Sequence[Site], config: Config, device: torch.device) -> QuantPlan:
    """What becomes of every weight: what `Quantizer.plan` names.

    Raises OptionError and ConfigError for requests that cannot be served, before any weight is read.
    """
    if isinstance(request.quant, Mapping):
        raise OptionError("quant names parts, which one network does not have.", fix="give the name of a scheme")
    topology = None if request.topology is None else read_topology(request.topology)
    free = free_memory(device)
    available = None if free is None else int(free * SHARE)
    chosen = choose(request.quant, request.organization, sites, config, str(device), available, request.dtype_bytes)
    assigned = {site.name: _packing(site, chosen[site.name], topology, device, request) for site in sites}
    _check_calibration(request, assigned)
    return QuantPlan(assigned, request, config)


def _tell_others(assigned: Mapping[str, Packing]) -> None:
    """One line for each reason why weights are not packed as they were asked to be."""
    reasons = dict.fromkeys(packing.why for packing in assigned.values() if packing.why)
    for why in reasons:
        got = Counter(packing.scheme or "plain" for packing in assigned.values() if packing.why == why)
        kinds = ", ".join(f"{count} {kind}" for kind, count in got.items())
        log.warning("%d of %d weights are packed otherwise (%s): %s", got.total(), len(assigned), kinds, why)


def _packing(
    site: Site, scheme: str | None, topology: Topology | None, device: torch.device, request: PackingRequest
) -> Packing:
    place = None
    if topology is not None:
        scheme, place = topology.scheme(site.name, scheme), topology.device(site.name)
        _check_device(place, device, topology, site)
    plain = prod(site.shape) * request.dtype_bytes
    if scheme is None:
        return Packing(None, plain, device=place)
    if (method := method_of(scheme)) is not None:
        size = method.nbytes(site.shape)
        if size is None:
            return Packing(None, plain, f"{site.shape[-1]} columns are no multiple of {GROUPS[-1]}", place)
        return Packing(method.name, size, device=place)
    got, why = fitting(SCHEMES[scheme], site.shape)
    if got is None:
        return Packing(None, plain, why, place)
    return Packing(got.name, packed_bytes(got, site.shape), why, place)


def _check_device(place: str | None, device: torch.device, topology: Topology, site: Site) -> None:
    if place is None or torch.device(place) == device or (place.partition(":")[0] == device.type and ":" not in place):
        return
    if device.type == "cuda" and place == f"cuda:{device.index or 0}":
        return
    raise OptionError(
        f"The topology places {site.name} on {place}, and the model runs on {device}: "
        "one model runs on one device as yet.",
        where=topology.origin,
        fix=f'load it with device="{place}", or leave device out of the topology',
    )


def _check_calibration(request: PackingRequest, assigned: Mapping[str, Packing]) -> None:
    needing = next((name for name, packing in assigned.items() if method_of(packing.scheme) is not None), None)
    if needing is not None and request.calibration_file is None:
        raise OptionError(
            f"{assigned[needing].scheme} is made from the activations of a text, and none is given.",
            where=needing,
            fix="give calibration_file=..., a text of the kind that the model will work on",
        )
    if request.imatrix is None and request.calibration_file is None:
        return
    if request.imatrix is not None and request.calibration_file is not None:
        raise OptionError("imatrix and calibration_file both say which columns matter.", fix="give one of them")
    if needing is None and not any(_weighs(packing) for packing in assigned.values()):
        raise OptionError(
            "No weight is packed in a way that takes importance into account.",
            fix='give quant="q4k" or another k-quant, or leave imatrix and calibration_file away',
        )


def _weighs(packing: Packing) -> bool:
    scheme = SCHEMES.get(packing.scheme or "")
    return scheme is not None and scheme.weighs
