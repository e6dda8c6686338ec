"""Which quantizer reads a checkpoint, and which packs a model while it loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bestiary.config import Config, read_json
from bestiary.errors import ConfigError, MissingPlugin, OptionError, shown
from bestiary.nearest import did_you_mean
from bestiary.protocols import PackingPlan, Repository
from bestiary.records import Packing, PackingRequest, Quantizer, Site, resolve
from bestiary.registry import Registry

if TYPE_CHECKING:
    import torch

KEYS = ("quantization_config", "quantization")
"""Of config.json; the second is MLX's."""
SAMPLE = 256
"""Rows and columns of the weight by which the size of a scheme is told that has no plan."""


def stated_quantization(
    config: Config, repository: Repository, registry: Registry
) -> tuple[Quantizer, Mapping[str, Any]] | None:
    """Who reads the packed weights of a checkpoint, and what it says of them; None where it says nothing.

    It is said in config.json, or in a file of its own beside it.  Raises ConfigError for what is no such statement,
    MissingPlugin where no installed plugin reads it.
    """
    quantizers = [record for record, _ in registry.records(Quantizer)]
    stated, where = _stated(config, repository, quantizers)
    if not stated:
        return None
    if not isinstance(stated, Mapping):
        raise ConfigError(f"quantization_config is {shown(stated)}; an object is due.", where=where)
    method = stated.get("quant_method")
    if method is None:
        found = [record for record in quantizers if record.recognise and record.recognise(stated)]
    else:
        found = [record for record in quantizers if isinstance(method, str) and method.lower() in record.methods]
    if found:
        return found[0], stated
    known = sorted(method for record in quantizers for method in record.methods)
    if method is not None and not isinstance(method, str):
        raise ConfigError(f'"quant_method" is {shown(method)}; a name is due.', where=where)
    what = (
        f"reads the quant_method {shown(method)}" if method else "knows a quantization without quant_method like this"
    )
    raise MissingPlugin(
        f"No installed plugin {what}.",
        where=where,
        fix=f"methods that are read: {', '.join(known)}" if known else "pip install bestiary-quant",
    )


def _stated(config: Config, repository: Repository, quantizers: Sequence[Quantizer]) -> tuple[Any, str]:
    for key in KEYS:
        if config.get(key):
            return config[key], f"{config.origin}, {key}"
    files = repository.files()
    for name in (name for record in quantizers for name in record.files if name in files):
        return read_json(repository.path(name)), f"{repository.origin}, {name}"
    return None, ""


def find_quantizer(scheme: str, registry: Registry, where: str | None = None) -> Quantizer:
    """The quantizer that packs by a scheme.  Raises MissingPlugin with the schemes that are known."""
    known = {name: record for record, _ in registry.records(Quantizer) for name in record.schemes}
    key = scheme if scheme in known else scheme.lower()
    if key not in known:
        near = did_you_mean(key, known)
        some = f"schemes that are installed: {', '.join(sorted(known))}" if known else "pip install bestiary-quant"
        raise MissingPlugin(
            f'No installed plugin knows the quantization scheme "{scheme[:100]}".',
            where=where,
            fix=f"{near} {some}".strip(),
        )
    return known[key]


def make_packing(
    request: PackingRequest, sites: Sequence[Site], config: Config, device: torch.device, registry: Registry
) -> PackingPlan | None:
    """The plan of the quantizer that a request names, or of the one that plans; None where nothing is asked.

    Raises MissingPlugin, and what the quantizer says of a request that it cannot serve.
    """
    if not request:
        return None
    quantizer = _planner(request, registry)
    if quantizer.plan is not None:
        made: PackingPlan = resolve(quantizer.plan)(request, sites, config, device)
        return made
    scheme = _only_name(request)
    if quantizer.pack is None or scheme is None:
        raise OptionError(f"{quantizer.name} packs by the name of a scheme alone.", fix="give quant=... and no more")
    return _alike(quantizer.pack, scheme, sites)


def _planner(request: PackingRequest, registry: Registry) -> Quantizer:
    if isinstance(request.quant, bool) or not (
        request.quant is None or isinstance(request.quant, str | int) or callable(request.quant)
    ):
        raise OptionError(
            f"quant is {shown(request.quant)}; the name of a scheme, a number of bits or a function is due."
        )
    if isinstance(request.quant, str | int):
        return find_quantizer(str(request.quant), registry)
    planners = [record for record, _ in registry.records(Quantizer) if record.plan is not None]
    if not planners:
        raise MissingPlugin("No installed plugin plans how to pack weights.", fix="pip install bestiary-quant")
    return planners[0]


def _alike(pack: str, scheme: str, sites: Sequence[Site]) -> PackingPlan:
    import torch

    from bestiary.pulling import Alike

    function: Callable[..., Any] = resolve(pack)
    sample = function(torch.zeros(SAMPLE, SAMPLE), scheme)
    ratio = 0.0 if sample is None else sample.nbytes / SAMPLE**2
    linear = [site for site in sites if site.role in ("linear", "head")] if sample is not None else []
    assigned = {site.name: Packing(scheme, int(site.shape[0] * site.shape[1] * ratio)) for site in linear}
    return Alike(assigned, lambda tensor: function(tensor, scheme))


def check_unpacked(request: PackingRequest, quantizer: Quantizer, stated: Mapping[str, Any], where: str) -> str | None:
    """What the user calls the packing that a checkpoint already has; the quantizer judges whether it is the same.

    Raises OptionError where more than a name is asked of weights that are packed.
    """
    if not request:
        return None
    if (name := _only_name(request)) is not None:
        return name
    asked = ", ".join(f"{name}={shown(value)}" for name, value in _asked(request).items())
    method = stated.get("quant_method") or quantizer.name
    raise OptionError(
        f"The checkpoint is packed already ({shown(method)}), and {asked} asks for another packing.",
        where=where,
        fix="leave it away, or load the model from a checkpoint that is not quantised",
    )


def _asked(request: PackingRequest) -> dict[str, Any]:
    names = ("quant", "topology", "organization", "imatrix", "calibration_file")
    return {name: value for name in names if (value := getattr(request, name)) is not None}


def _only_name(request: PackingRequest) -> str | None:
    return request.quant if isinstance(request.quant, str) and set(_asked(request)) == {"quant"} else None
