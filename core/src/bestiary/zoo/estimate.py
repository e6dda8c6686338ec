"""What a pipeline takes of its device: told from headers before it is loaded, measured when it is.

The rule: every parameter as it will be held, and the whole cache of keys and values, written or not.  What a step needs
for a moment is not counted.  Where nobody says `cache_tokens`, the cache holds one whole context or `USUAL` tokens, as
far as half of what the weights leave of the budget goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bestiary.amount import written
from bestiary.errors import CheckpointError, OutOfMemory, WeightMismatch
from bestiary.identified import Identified, identify_model
from bestiary.loading import check_cache_tokens
from bestiary.opening import open_checkpoint, weight_headers
from bestiary.packing import make_packing, stated_quantization
from bestiary.parts import SMALL, find_parts, packing_of
from bestiary.protocols import Checkpoint
from bestiary.records import PackingRequest, SourceOptions
from bestiary.registry import default_registry

if TYPE_CHECKING:
    import torch

    from bestiary.nn.batch import LayerSpec


@dataclass(frozen=True)
class Estimate:
    """What a model will take on a device, in bytes."""

    device: str
    weights: int
    cache: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that the load must be given so that it takes no more."""

    @property
    def nbytes(self) -> int:
        return self.weights + self.cache


def estimate(id: str, options: Mapping[str, Any], budget: Callable[[str], int]) -> Estimate:
    """What a model takes with the `options` of `load`, from its small files and the headers of its weights.

    `budget` gives the budget of a device in bytes.  Raises what `load` raises before it reads data, and OutOfMemory
    where the weights alone are larger than the budget.
    """
    from bestiary import placement

    dtype = options.get("dtype", "auto")
    asked = ("quant", "topology", "organization", "imatrix", "calibration_file")
    request = PackingRequest(**{name: options[name] for name in asked if name in options})
    placement.check_dtype(dtype)
    check_cache_tokens(options.get("cache_tokens"))
    device = device_name(options.get("device", "auto"))
    registry = options.get("registry") or default_registry()
    source = {name: options[name] for name in ("revision", "token", "cache_dir", "offline") if name in options}
    identified = identify_model(id, SourceOptions(**source), registry, options.get("plugin"), request.quant)
    request = replace(request, quant=None) if identified.chosen else request
    if identified.architecture.parts:
        return _estimate_parts(identified, dtype, device, request, options, budget)
    models = [_read(identified, dtype, device, request)]
    draft = options.get("draft")
    if isinstance(draft, str) and draft != "ngram":
        models.append(_read(identified.other(draft), "auto", device, PackingRequest()))
    weights = sum(model.weights for model in models)
    room = _room(weights, device, budget, identified)
    if models[0].specs is None:
        return Estimate(device, weights)
    sequences, block_size = options.get("max_requests"), options.get("block_size", 16)
    cache_type = options.get("cache_type", "auto")
    tokens = options.get("cache_tokens") or _tokens(models[0], room, options.get("cache_memory"), cache_type)
    cache = sum(_cache_bytes(model, tokens, block_size, sequences, cache_type) for model in models)
    return Estimate(device, weights, cache, {"cache_tokens": tokens})


def _estimate_parts(
    whole: Identified,
    dtype: str | torch.dtype,
    device: str,
    request: PackingRequest,
    options: Mapping[str, Any],
    budget: Callable[[str], int],
) -> Estimate:
    """Of a pipeline made of parts; of one that is offloaded the largest part, and those that stay beside it."""
    found = find_parts(whole, options.get("parts")).values()
    networks = [(each.part, each.network) for each in found if each.network is not None]
    sizes = [_read(network, dtype, device, packing_of(part, request)).weights for part, network in networks]
    if options.get("offload") is not None:
        sizes = [max(sizes), *(size for size in sizes if size < SMALL * max(sizes))]
    _room(sum(sizes), device, budget, whole)
    return Estimate(device, sum(sizes))


def _room(weights: int, device: str, budget: Callable[[str], int], identified: Identified) -> int:
    """What weights leave of a budget.  Raises OutOfMemory."""
    room = budget(device) - weights
    if room < 0:
        raise OutOfMemory(
            f"The weights need {written(weights)}; the budget on {device} is {written(budget(device))}.",
            where=identified.repository.origin,
            fix='a larger budget, a smaller model, dtype="bfloat16" or quant=...',
        )
    return room


def device_name(device: str | torch.device) -> str:
    """The device that `load` would choose, with its index, so that one device has one name."""
    import torch

    from bestiary import placement

    chosen = placement.choose_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(chosen)


def measured(pipeline: Any) -> int | None:
    """What a loaded pipeline takes: its `nbytes`, else the weights of its network; None: it does not tell."""
    told = getattr(pipeline, "nbytes", None)
    if isinstance(told, int):
        return told
    from torch import nn

    from bestiary.building import resident_bytes

    network = getattr(pipeline, "model", None)
    return resident_bytes(network) if isinstance(network, nn.Module) else None


@dataclass(frozen=True)
class _Headers:
    """What the headers of one model say."""

    weights: int
    dtype: torch.dtype
    specs: tuple[LayerSpec, ...] | None
    """None: not a model that keeps a cache."""
    context: int


def _read(identified: Identified, asked: str | torch.dtype, device: str, request: PackingRequest) -> _Headers:
    import torch

    from bestiary import building, placement
    from bestiary.pulling import sites

    registry, config = identified.registry, identified.config
    network = building.build_empty(identified.architecture, config)
    if request and stated_quantization(config, identified.repository, registry) is not None:
        request = PackingRequest()  # it can only name what the checkpoint has already
    with closing(_open(identified)) as headers:
        stated = config.get("dtype") or config.text.get("dtype")
        dtype = placement.choose_dtype(asked, stated, headers)
        plan = building.make_plan(identified.architecture, config, network, headers)
        request = replace(request, dtype_bytes=dtype.itemsize)
        packing = make_packing(request, sites(network, plan, headers), config, torch.device(device), registry)
        weights = building.needed_bytes(network, plan, headers, dtype, packing)
    context = config.text.get("max_position_embeddings") or 0
    return _Headers(weights, dtype, getattr(network, "specs", None), context)


def _open(identified: Identified) -> Checkpoint:
    try:
        return weight_headers(identified, identified.registry)
    except WeightMismatch:
        raise
    except CheckpointError:  # a part of a remote file cannot be verified: the whole one, which will be, decides
        return open_checkpoint(identified, identified.registry)


def _tokens(model: _Headers, room: int, memory: int | float | str | None, cache_type: str) -> int:
    from bestiary.generation.engine.memory import default_tokens, tokens_in
    from bestiary.pipelines.text_options import cache_bytes

    stated = cache_bytes(memory)
    if stated is not None:
        return tokens_in(stated, room, model.specs or (), model.context, model.dtype, cache_type)
    return default_tokens(room, model.specs or (), model.context, model.dtype, cache_type)


def _cache_bytes(model: _Headers, tokens: int, block_size: int, sequences: int | None, cache_type: str) -> int:
    """Of the cache itself, made on a device that holds no data."""
    import torch

    from bestiary.generation.engine.paged import PagedCache
    from bestiary.generation.engine.scheduler import Limits

    limits = Limits() if sequences is None else Limits(sequences=sequences)
    return PagedCache(
        model.specs or (),
        tokens,
        block_size,
        sequences=limits.sequences,
        step_tokens=limits.tokens,
        dtype=model.dtype,
        device=torch.device("meta"),
        cache_type=cache_type,
    ).nbytes
