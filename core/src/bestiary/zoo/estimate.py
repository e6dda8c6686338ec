"""What a pipeline takes of its device: told from headers before it is loaded, measured when it is.

The rule: every parameter as it will be held, and the whole cache of keys and values, written or not.  What a step needs
for a moment is not counted.  Where nobody says `cache_tokens`, the cache holds one whole context or `USUAL` tokens, as
far as half of what the weights leave of the budget goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bestiary.errors import CheckpointError, OutOfMemory, WeightMismatch
from bestiary.loading import (
    Identified,
    check_cache_tokens,
    find_quantizer,
    identify_model,
    open_checkpoint,
    weight_headers,
)
from bestiary.protocols import Checkpoint
from bestiary.records import SourceOptions, resolve
from bestiary.registry import Registry, default_registry
from bestiary.zoo.amount import written

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bestiary.nn.batch import LayerSpec

_SAMPLE = 256
"""Rows and columns of the weight that is packed to see how small a scheme makes one."""
_PLAIN = frozenset(("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U8", "BOOL"))


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

    dtype, quant = options.get("dtype", "auto"), options.get("quant")
    placement.check_dtype(dtype)
    check_cache_tokens(options.get("cache_tokens"))
    device = device_name(options.get("device", "auto"))
    registry = options.get("registry") or default_registry()
    source = {name: options[name] for name in ("revision", "token", "cache_dir", "offline") if name in options}
    identified = identify_model(id, SourceOptions(**source), registry, options.get("plugin"), quant)
    models = [_read(identified, dtype, None if identified.chosen else quant)]
    draft = options.get("draft")
    if isinstance(draft, str) and draft != "ngram":
        models.append(_read(identified.other(draft), "auto", None))
    weights = sum(model.weights for model in models)
    room = budget(device) - weights
    if room < 0:
        raise OutOfMemory(
            f"The weights need {written(weights)}; the budget on {device} is {written(budget(device))}.",
            where=identified.repository.origin,
            fix='a larger budget, a smaller model, dtype="bfloat16" or quant=...',
        )
    if models[0].specs is None:
        return Estimate(device, weights)
    tokens = options.get("cache_tokens") or _tokens(models[0], room, options.get("cache_memory"))
    sequences, block_size = options.get("max_requests"), options.get("block_size", 16)
    cache = sum(_cache_bytes(model, tokens, block_size, sequences) for model in models)
    return Estimate(device, weights, cache, {"cache_tokens": tokens})


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


def _read(identified: Identified, asked: str | torch.dtype, quant: str | None) -> _Headers:
    from bestiary import building, placement

    ratio = None if quant is None else _packed_ratio(quant, identified.registry)
    network = building.build_empty(identified.architecture, identified.config)
    with closing(_open(identified)) as headers:
        stated = identified.config.get("dtype") or identified.config.text.get("dtype")
        dtype = placement.choose_dtype(asked, stated, headers)
        weights = _weight_bytes(identified, network, headers, dtype, ratio)
    context = identified.config.text.get("max_position_embeddings") or 0
    return _Headers(weights, dtype, getattr(network, "specs", None), context)


def _open(identified: Identified) -> Checkpoint:
    registry = identified.registry
    if identified.config.get("quantization_config"):  # its tensors have their meaning only through the quantizer
        return open_checkpoint(identified, registry)
    try:
        return weight_headers(identified, registry)
    except WeightMismatch:
        raise
    except CheckpointError:  # a part of a remote file cannot be verified: the whole one, which will be, decides
        return open_checkpoint(identified, registry)


def _weight_bytes(
    identified: Identified, network: nn.Module, headers: Checkpoint, dtype: torch.dtype, ratio: float | None
) -> int:
    """Shared parameters once; linear weights `ratio` bytes for each number, where they are packed while loading."""
    from bestiary import building
    from bestiary.nn import Embedding, Experts, Linear

    plan = building.make_plan(identified.architecture, identified.config, network, headers)
    total, stored, seen = 0.0, set[str](), set[int]()
    for path, module in network.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{attribute}" if path else attribute
            if name in plan.ties or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            sources = plan.recipes[name].sources()
            weight = attribute == "weight"
            if ratio is not None and isinstance(module, Linear) and weight:
                total += parameter.numel() * ratio
            elif (isinstance(module, Experts) or (isinstance(module, Linear | Embedding) and weight)) and any(
                headers.dtype(source) not in _PLAIN for source in sources
            ):
                stored.update(sources)  # what is stored packed stays packed
            else:
                total += parameter.numel() * dtype.itemsize
    return int(total) + sum(headers.nbytes(source) for source in stored)


def _packed_ratio(quant: str, registry: Registry) -> float | None:
    """Bytes for each number of a weight that a scheme packs."""
    import torch

    pack = find_quantizer(quant, registry).pack
    packed = None if pack is None else resolve(pack)(torch.zeros(_SAMPLE, _SAMPLE), quant)
    return None if packed is None else packed.nbytes / _SAMPLE**2


def _tokens(model: _Headers, room: int, memory: int | float | str | None) -> int:
    from bestiary.generation.engine.memory import default_tokens, tokens_in
    from bestiary.pipelines.text_options import cache_bytes

    stated = cache_bytes(memory)
    if stated is not None:
        return tokens_in(stated, room, model.specs or (), model.context, model.dtype)
    return default_tokens(room, model.specs or (), model.context, model.dtype)


def _cache_bytes(model: _Headers, tokens: int, block_size: int, sequences: int | None) -> int:
    """Of the cache itself, made on a device that holds no data."""
    import torch

    from bestiary.generation.engine.paged import PagedCache
    from bestiary.generation.engine.scheduler import Limits

    limits = Limits() if sequences is None else Limits(sequences=sequences)
    sizes = {"sequences": limits.sequences, "step_tokens": limits.tokens}
    meta = torch.device("meta")
    return PagedCache(model.specs or (), tokens, block_size, **sizes, dtype=model.dtype, device=meta).nbytes
