"""A model before any weight: where it lies, what it is, who builds it, told from its small files alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bestiary.config import Config, normalise
from bestiary.errors import CheckpointError, ConfigError, ContestedModel, MissingPlugin
from bestiary.identity import best_loader, described, header_shapes, identify, pipelines_of, read_evidence
from bestiary.protocols import Repository
from bestiary.records import PART, Architecture, Evidence, Part, SourceOptions, resolve
from bestiary.registry import Plugin, Registry
from bestiary.routing import open_repository
from bestiary.sources.chosen import Chosen

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
    options: Mapping[str, Any] = field(default_factory=dict)
    """What `load` was told that is the pipeline's own (`PipelineType.options`)."""
    part: Architecture | None = None
    """Of a pipeline of which the repository has the main part alone: that part."""

    def other(self, model: str) -> Identified:
        """Another model that belongs to this one, such as one that drafts for it."""
        return identify_model(model, replace(self.source, revision=None, told={}), self.registry)

    def repository_of(self, id: str) -> Repository:
        """Another repository that belongs to this one, such as an adapter's."""
        return open_repository(id, replace(self.source, revision=None), self.registry)


def identify_model(
    model: str, options: SourceOptions, registry: Registry, plugin: str | None = None, wanted: Any = None
) -> Identified:
    """Where a model lies, what it is, and its configuration, from its small files alone.

    Of an adapter it is the model that the adapter names as its base.  `wanted` is the `quant` of `load`, which may name
    one of several models in a repository.
    """
    repository, adapter = _choose(open_repository(model, options, registry), wanted, registry), None
    evidence = read_evidence(repository, registry, options.told)
    if _is_adapter(evidence):
        adapter, base = repository, replace(options, revision=None)
        repository = _choose(open_repository(_base_of(evidence), base, registry), wanted, registry)
        evidence = read_evidence(repository, registry, options.told)
        if _is_adapter(evidence):
            raise CheckpointError("The base of the adapter is an adapter itself.", where=adapter.origin)
    architecture, owner = identify(evidence, registry, plugin)
    part = None
    if architecture.task == PART:
        part = architecture
        architecture, owner = _whole(part, evidence, registry, plugin)
    log.info("%s is %s, built by %s %s", model, architecture.name, owner.distribution, owner.version)
    found = _complete(repository, evidence, architecture, owner, options, registry)
    return replace(found, adapter=adapter, chosen=isinstance(repository, Chosen), part=part)


def identify_part(part: Part, repository: Repository, options: SourceOptions, registry: Registry) -> Identified | None:
    """One part of a pipeline, if it is what a repository holds; None for anything else.

    Raises MissingPlugin where the repository says that it is one of the part's architectures, and none is installed.
    """
    try:
        evidence = read_evidence(repository, registry, options.told)
    except ConfigError:
        return None
    if evidence.model_index:
        return None
    known = any(record.name in part.architectures for record, _ in registry.records(Architecture))
    try:
        architecture, owner = identify(evidence, registry, among=part.architectures)
    except MissingPlugin:
        if known:
            return None
        raise
    return _complete(repository, evidence, architecture, owner, options, registry)


def _complete(
    repository: Repository,
    evidence: Evidence,
    architecture: Architecture,
    owner: Plugin,
    options: SourceOptions,
    registry: Registry,
) -> Identified:
    """With its configuration, and the weight files that are its own."""
    origin = evidence.origin if evidence.gguf else f"{evidence.origin}, config.json"
    stated = evidence.config
    loader = best_loader(repository, registry)
    if (implied := described(architecture, evidence)) is not None and loader is not None:
        name, stated = implied
        origin = f"{evidence.origin}, {name}"
        repository = Chosen(repository, (name,), loader.suffixes, origin)
    elif evidence.gguf and architecture.describe and loader is not None and loader.headers is not None:
        # Files of image models have no configuration in their metadata.
        shapes = header_shapes(repository, loader, tuple(resolve(loader.files)(repository)))
        stated = {**(resolve(architecture.describe)(shapes) or {}), **stated}
    config = normalise(stated, origin, architecture.defaults)
    repository = _with_its_files(repository, evidence, architecture, registry)
    return Identified(repository, evidence, architecture, owner, config, options, registry)


def _whole(
    part: Architecture, evidence: Evidence, registry: Registry, plugin: str | None
) -> tuple[Architecture, Plugin]:
    """The pipeline whose main part was found.  Raises CheckpointError for a part of another kind, ContestedModel."""
    found = pipelines_of(part, registry)
    if plugin is not None:
        found = [(whole, owner) for whole, owner in found if plugin in (owner.name, owner.distribution)]
    if len(found) > 1:
        owners = [f"{owner.distribution} ({whole.name})" for whole, owner in found]
        raise ContestedModel(
            f"{len(found)} pipelines have {part.name} as their main part: {', '.join(owners)}.",
            where=evidence.origin,
            fix=f'choose one: bestiary.load(..., plugin="{found[0][1].distribution}")',
        )
    if found:
        return found[0]
    places = [
        f'{whole.name} has it as parts={{"{place.name}": ...}}'
        for whole, _ in registry.records(Architecture)
        for place in whole.parts
        if part.name in place.architectures
    ]
    raise CheckpointError(
        f"{part.name} is a part of other models, and no model by itself.",
        where=evidence.origin,
        fix="; ".join(places) or "install a plugin of a model that has it",
    )


def _choose(repository: Repository, wanted: Any, registry: Registry) -> Repository:
    if not isinstance(wanted, str | int):
        return repository
    loader = best_loader(repository, registry)
    if loader is None or loader.choose is None:
        return repository
    names = resolve(loader.choose)(repository, str(wanted))
    return repository if names is None else Chosen(repository, names, loader.suffixes)


def _with_its_files(
    repository: Repository, evidence: Evidence, architecture: Architecture, registry: Registry
) -> Repository:
    """The repository as an architecture sees it that needs other weight files than the loader takes by itself."""
    known = (architecture.name, *architecture.aliases)
    names = next((evidence.weights[name] for name in known if name in evidence.weights), None)
    loader = None if names is None else best_loader(repository, registry)
    if names is None or loader is None:
        return repository
    whole = repository.whole if isinstance(repository, Chosen) else repository
    return Chosen(whole, names, loader.suffixes, repository.origin)


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
