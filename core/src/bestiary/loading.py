"""`bestiary.load`: from a model id to a pipeline, in the order in which a failure costs least.

Small files first: source, identity, configuration.  Then the headers of the weights and the plan, and only then data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bestiary.checkpoints.refuse import refuse
from bestiary.config import Config, normalise, read_json
from bestiary.errors import CheckpointError, ConfigError, MissingPlugin, OptionError, WeightMismatch, shown
from bestiary.identity import best_loader, identify, read_evidence
from bestiary.nearest import did_you_mean
from bestiary.progress import bar
from bestiary.protocols import Checkpoint, Repository
from bestiary.records import Architecture, Evidence, Loader, PipelineType, Progress, Quantizer, SourceOptions, resolve
from bestiary.registry import Plugin, Registry, default_registry
from bestiary.routing import open_repository
from bestiary.sources.chosen import Chosen

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bestiary.weights import Plan

log = logging.getLogger("bestiary.loading")


@dataclass(frozen=True)
class Identified:
    """A model before any weight: where it lies, what it is, who builds it, and its normalised configuration."""

    repository: Repository
    evidence: Evidence
    architecture: Architecture
    plugin: Plugin
    config: Config
    source: SourceOptions
    registry: Registry
    """How it was found: other repositories that a pipeline needs are opened likewise."""
    adapter: Repository | None = None
    """The adapter that was asked for, where the id was that of an adapter; all else is of the model under it."""
    chosen: bool = False
    """Whether `quant` chose one of several models in the repository."""

    def other(self, model: str) -> Identified:
        """Another model that belongs to this one, such as one that drafts for it."""
        return identify_model(model, replace(self.source, revision=None), self.registry)

    def repository_of(self, id: str) -> Repository:
        """Another repository that belongs to this one, such as an adapter's."""
        return open_repository(id, replace(self.source, revision=None), self.registry)


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights, where they lie and in which type."""

    identified: Identified
    model: nn.Module
    plan: Plan
    shapes: Mapping[str, tuple[int, ...]]
    """Of the tensors of which the plan makes the model, as models of the architecture are published."""
    device: torch.device
    dtype: torch.dtype
    quant: str | None = None
    cache_tokens: int | None = None
    """What `load` was told about the cache of keys and values; None: the pipeline decides."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What `load` was told that is the pipeline's own (`PipelineType.options`)."""
    progress: Callable[[Progress], None] | None = None


def load(
    model: str,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    quant: str | None = None,
    cache_tokens: int | None = None,
    revision: str | None = None,
    plugin: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | None = None,
    offline: bool = False,
    progress: bool | Callable[[Progress], None] | None = None,
    registry: Registry | None = None,
    **options: Any,
) -> Any:
    """Load a model and return its pipeline, a context manager.

    `model` is a hub id, a local folder or weight file, or the name of a packaged model ("demo").  `dtype` is "auto"
    (as the checkpoint says), "float32", "bfloat16" or "float16"; `device` "auto", "cpu", "cuda", "cuda:1".  `quant`
    packs the weights while they load, by a scheme that an installed quantizer plugin names.  `cache_tokens` is how
    many tokens of all running requests the cache holds together; by default a whole context, or what half of the free
    memory allows.  `plugin` decides where two plugins claim a model.  `progress` is True for bars on stderr (the
    default on a terminal), False for silence, or a function that gets Progress events.  Other
    `options` are those of the model's pipeline (see `TextPipeline`).

    Raises a BestiaryError that says what, where and what to do: a missing plugin, for example, before any weight file
    is fetched.
    """
    check_cache_tokens(cache_tokens)
    registry = registry or default_registry()
    _check_options(options, [record for record, _ in registry.records(PipelineType)])
    with _reporting(progress) as report:
        source = SourceOptions(revision, token, cache_dir, offline, report)
        identified = identify_model(model, source, registry, plugin, quant)
        pipeline = registry.pipeline(identified.architecture.task)
        _check_options(options, [pipeline])
        pull = partial(
            load_weights,
            identified,
            registry,
            dtype=dtype,
            device=device,
            quant=None if identified.chosen else quant,
            cache_tokens=cache_tokens,
            options=options,
            progress=report,
        )
        return resolve(pipeline.pipeline)(identified, pull)


def _check_options(options: Mapping[str, Any], pipelines: Iterable[PipelineType]) -> None:
    own = [name for name in load.__kwdefaults__ or () if name != "registry"]
    known = [*own, *(name for pipeline in pipelines for name in pipeline.options)]
    for name in options:
        if name not in known:
            fix = did_you_mean(name, known) or f"the options are {', '.join(known)}"
            raise OptionError(f'load has no option "{name}".', fix=fix)


def identify_model(
    model: str, options: SourceOptions, registry: Registry, plugin: str | None = None, wanted: str | None = None
) -> Identified:
    """Where a model lies, what it is, and its configuration, from its small files alone.

    Of an adapter it is the model that the adapter names as its base.  `wanted` is the `quant` of `load`, which may name
    one of several models in a repository.
    """
    repository, adapter = _choose(open_repository(model, options, registry), wanted, registry), None
    evidence = read_evidence(repository, registry)
    if _is_adapter(evidence):
        adapter, base = repository, replace(options, revision=None)
        repository = _choose(open_repository(_base_of(evidence), base, registry), wanted, registry)
        evidence = read_evidence(repository, registry)
        if _is_adapter(evidence):
            raise CheckpointError("The base of the adapter is an adapter itself.", where=adapter.origin)
    architecture, owner = identify(evidence, registry, plugin)
    log.info("%s is %s, built by %s %s", model, architecture.name, owner.distribution, owner.version)
    origin = evidence.origin if evidence.gguf else f"{evidence.origin}, config.json"
    config = normalise(evidence.config, origin, architecture.defaults)
    chosen = isinstance(repository, Chosen)
    return Identified(repository, evidence, architecture, owner, config, options, registry, adapter, chosen)


def _choose(repository: Repository, wanted: str | None, registry: Registry) -> Repository:
    loader = best_loader(repository.files(), registry)
    if wanted is None or loader is None or loader.choose is None:
        return repository
    names = resolve(loader.choose)(repository, wanted)
    return repository if names is None else Chosen(repository, names, loader.suffixes)


def _is_adapter(evidence: Evidence) -> bool:
    return bool(evidence.adapter) and not evidence.config and not evidence.model_index


def _base_of(evidence: Evidence) -> str:
    base = evidence.adapter.get("base_model_name_or_path")
    if not isinstance(base, str) or not base.strip():
        raise CheckpointError(
            "The adapter does not say which model it is for.",
            where=f"{evidence.origin}, adapter_config.json",
            fix="load its base with adapters={...}",
        )
    return base


def choose_loader(repository: Repository, registry: Registry) -> tuple[Loader, tuple[str, ...]]:
    """The weight format of a repository, and the files of it to fetch.  Raises CheckpointError."""
    loader = best_loader(repository.files(), registry)
    if loader is not None:
        return loader, tuple(resolve(loader.files)(repository))
    refuse(repository.files(), repository.origin)
    endings = ", ".join(suffix for loader, _ in registry.records(Loader) for suffix in loader.suffixes)
    raise CheckpointError(
        "There are no weights here in a format that an installed plugin opens.",
        where=repository.origin,
        fix=f"formats that are installed: {endings or 'none'}",
    )


def open_checkpoint(
    identified: Identified, registry: Registry, progress: Callable[[Progress], None] | None = None
) -> Checkpoint:
    """Fetch the weight files and open them, through the quantizer that the configuration names, if any."""
    quantizer = _checkpoint_quantizer(identified, registry)
    loader, names = choose_loader(identified.repository, registry)
    identified.repository.fetch(names, progress)
    checkpoint: Checkpoint = resolve(loader.open)(identified.repository, names)
    if quantizer is not None and quantizer.load is not None:
        checkpoint = resolve(quantizer.load)(checkpoint, identified.config["quantization_config"])
    return checkpoint


def load_weights(
    identified: Identified,
    registry: Registry,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    quant: str | None = None,
    cache_tokens: int | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> LoadedModel:
    """Build the network and pull its weights; the options are those of `load`."""
    from bestiary import building, placement

    placement.check_dtype(dtype)
    place = placement.choose_device(device)
    pack = _packer(quant, registry)
    model = building.build_empty(identified.architecture, identified.config)
    stated = identified.config.get("dtype") or identified.config.text.get("dtype")

    def checked(checkpoint: Checkpoint) -> tuple[Plan, torch.dtype]:
        kind = placement.choose_dtype(dtype, stated, checkpoint)
        plan = building.make_plan(identified.architecture, identified.config, model, checkpoint)
        if pack is None:
            placement.check_fits(building.nbytes(model, kind), place)
        return plan, kind

    if not identified.repository.local and not identified.config.get("quantization_config"):
        # What the headers show need not be found after gigabytes were fetched.
        try:
            with closing(weight_headers(identified, registry)) as headers:
                checked(headers)
        except WeightMismatch:
            raise
        except CheckpointError as error:
            # A part of a file cannot be verified: the whole one, which will be, decides.
            log.info("the headers of %s could not be read ahead: %s", identified.repository.origin, error.what)
    checkpoint = open_checkpoint(identified, registry, progress)
    try:
        plan, kind = checked(checkpoint)
        building.pull(model, plan, checkpoint, device=place, dtype=kind, pack=pack, progress=progress)
        published, shapes = building.published(identified.architecture, identified.config, checkpoint)
    finally:
        checkpoint.close()
    return LoadedModel(identified, model, published, shapes, place, kind, quant, cache_tokens, options or {}, progress)


def weight_headers(identified: Identified, registry: Registry) -> Checkpoint:
    """Names and shapes of the weights; where the format allows, without fetching the files.  `read` may fail."""
    loader, names = choose_loader(identified.repository, registry)
    if loader.headers is None:
        return open_checkpoint(identified, registry)
    checkpoint: Checkpoint = resolve(loader.headers)(identified.repository, names)
    return checkpoint


def generation_config(repository: Repository) -> Mapping[str, Any]:
    """generation_config.json, or nothing."""
    name = "generation_config.json"
    return read_json(repository.path(name)) if name in repository.files() else {}


def check_cache_tokens(value: object) -> None:
    """Raises OptionError for what is no number of tokens."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 16 <= value < 1 << 40):
        raise OptionError(f"cache_tokens is {shown(value)}; a whole number of at least 16 is due.")


def _checkpoint_quantizer(identified: Identified, registry: Registry) -> Quantizer | None:
    stated = identified.config.get("quantization_config")
    if not stated:
        return None
    method = stated.get("quant_method") if isinstance(stated, Mapping) else None
    if not isinstance(method, str):
        raise ConfigError("quantization_config has no quant_method.", where=identified.config.origin)
    return find_quantizer(method, registry, where=identified.config.origin)


def find_quantizer(scheme: str, registry: Registry, where: str | None = None) -> Quantizer:
    """The quantizer that knows a scheme.  Raises MissingPlugin with the schemes that are known."""
    known = {name: record for record, _ in registry.records(Quantizer) for name in record.schemes}
    if scheme not in known:
        raise MissingPlugin(
            f'No installed plugin knows the quantization scheme "{scheme}".',
            where=where,
            fix=f"schemes that are installed: {', '.join(sorted(known)) or 'none'}",
        )
    return known[scheme]


def _packer(quant: str | None, registry: Registry) -> Callable[[str, torch.Tensor], Any] | None:
    if quant is None:
        return None
    quantizer = find_quantizer(quant, registry)
    if quantizer.pack is None:
        raise OptionError(f'The scheme "{quant}" can be read, but not made while loading.')
    pack = resolve(quantizer.pack)
    return lambda name, tensor: pack(tensor, quant)


def _reporting(
    progress: bool | Callable[[Progress], None] | None,
) -> AbstractContextManager[Callable[[Progress], None] | None]:
    if callable(progress):
        return nullcontext(progress)
    return bar(progress)
