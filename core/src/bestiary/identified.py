"""A model before any weight: where it lies, what it is, who builds it, told from its small files alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bestiary.config import Config, normalise
from bestiary.errors import CheckpointError
from bestiary.identity import best_loader, identify, read_evidence
from bestiary.protocols import Repository
from bestiary.records import Architecture, Evidence, SourceOptions, resolve
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
    log.info("%s is %s, built by %s %s", model, architecture.name, owner.distribution, owner.version)
    origin = evidence.origin if evidence.gguf else f"{evidence.origin}, config.json"
    config = normalise(evidence.config, origin, architecture.defaults)
    chosen = isinstance(repository, Chosen)
    repository = _with_its_files(repository, evidence, architecture, registry)
    return Identified(repository, evidence, architecture, owner, config, options, registry, adapter, chosen)


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
