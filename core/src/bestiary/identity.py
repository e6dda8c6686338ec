"""Which architecture a repository holds, told from its small files before any weight is fetched."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from bestiary.catalog import FORMATS, distribution_of
from bestiary.config import read_json
from bestiary.errors import BrokenPlugin, CheckpointError, ConfigError, ContestedModel, MissingPlugin
from bestiary.nearest import did_you_mean
from bestiary.protocols import Repository
from bestiary.records import Architecture, Evidence, Loader, resolve
from bestiary.registry import Plugin, Registry

log = logging.getLogger("bestiary.plugins")
PROBE, NAME, TYPE = 3, 2, 1
"""How strong a claim is: a plugin looked at the files; the class is named; the model type is named."""
MOST_FILES = 16
"""Weight files without configuration whose headers are looked at."""


def read_evidence(repository: Repository, registry: Registry, told: Mapping[str, Any] | None = None) -> Evidence:
    """The small files of a repository.  Raises ConfigError where nothing says what the model is.

    `told` are options of loaders, of which the one that opens the weights gets its own.
    """
    files = repository.files()

    def read(name: str) -> dict[str, object]:
        return read_json(repository.path(name)) if name in files else {}

    evidence = Evidence(
        files=tuple(files),
        config=read("config.json"),
        model_index=read("model_index.json"),
        adapter=read("adapter_config.json"),
        origin=repository.origin,
    )
    loader = best_loader(repository, registry)
    _check_formats(evidence, registry, loader)
    # What a weight file says of itself counts more than a config.json beside it, which is often a stub.
    if loader is not None and loader.identify and not evidence.model_index:
        own = {name: value for name, value in (told or {}).items() if name in loader.options}
        found: Evidence = resolve(loader.identify)(repository, first_file(repository, loader), **own)
        return found
    if evidence.config or evidence.model_index or evidence.adapter:
        return evidence
    if loader is not None and loader.headers is not None:
        evidence = replace(evidence, shapes=_shapes_of_files(repository, loader))
    if any(_claim(record, evidence) == PROBE for record, _ in registry.records(Architecture)):
        return evidence
    raise ConfigError(
        "Nothing here says what the model is: there is no config.json, model_index.json or adapter_config.json.",
        where=repository.origin,
        fix="give the folder that holds config.json beside the weights"
        if repository.local
        else "choose a repository in the Hugging Face layout",
    )


def _shapes_of_files(repository: Repository, loader: Loader) -> dict[str, dict[str, tuple[int, ...]]]:
    """By weight file at the top of a repository; of many, and of one that cannot be read, nothing."""
    names = [name for name in repository.files() if name.endswith(loader.suffixes) and "/" not in name]
    found = {}
    for name in names if len(names) <= MOST_FILES else ():
        try:
            found[name] = header_shapes(repository, loader, (name,))
        except CheckpointError as error:
            log.info("the header of %s could not be read: %s", name, error.what)
    return found


def header_shapes(repository: Repository, loader: Loader, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in some files.  Raises CheckpointError."""
    assert loader.headers is not None
    with closing(resolve(loader.headers)(repository, names)) as headers:
        return {name: headers.shape(name) for name in headers.names()}


def described(record: Architecture, evidence: Evidence) -> tuple[str, Mapping[str, Any]] | None:
    """The first weight file without configuration that is of an architecture, and the configuration that it implies."""
    if record.describe is None or not evidence.shapes:
        return None
    describe = resolve(record.describe)
    for name, shapes in evidence.shapes.items():
        if (config := describe(shapes)) is not None:
            return name, config
    return None


def _check_formats(evidence: Evidence, registry: Registry, loader: Loader | None) -> None:
    """Raises MissingPlugin for weights in a format that no installed plugin opens, where there are no others."""
    known = {suffix for record, _ in registry.records(Loader) for suffix in record.suffixes}
    for suffix, distribution in FORMATS.items():
        name = next((name for name in evidence.files if name.endswith(suffix)), None)
        if name is not None and suffix not in known and (loader is None or suffix == ".uqff"):
            raise MissingPlugin(
                f"No installed plugin opens {suffix} files, such as {name}.",
                where=evidence.origin,
                fix=f"pip install {distribution}",
            )


def best_loader(repository: Repository, registry: Registry) -> Loader | None:
    """The loader of highest priority that has a file in a repository."""
    loaders = sorted((record for record, _ in registry.records(Loader)), key=lambda loader: -loader.priority)
    return next((loader for loader in loaders if first_file(repository, loader) is not None), None)


def first_file(repository: Repository, loader: Loader) -> str | None:
    """The first file that a loader opens, by its ending, and by its first bytes where endings are shared."""
    for name in repository.files():
        if name.endswith(loader.suffixes) and (not loader.shared or loader.sniff(name, repository.head(name, 16))):
            return name
    return None


def identify(
    evidence: Evidence, registry: Registry, plugin: str | None = None, among: Collection[str] | None = None
) -> tuple[Architecture, Plugin]:
    """The architecture that claims the evidence most strongly; `plugin`, or its distribution, decides a contest.

    `among` are the names that count.  Raises MissingPlugin, BrokenPlugin or ContestedModel, each with the command that
    mends it.
    """
    records = [each for each in registry.records(Architecture) if among is None or each[0].name in among]
    claims = [(_claim(record, evidence), record, owner) for record, owner in records]
    if plugin is not None:
        _check_plugin(plugin, registry)
        claims = [claim for claim in claims if plugin in (claim[2].name, claim[2].distribution)]
    strongest = max((strength for strength, _, _ in claims), default=0)
    if strongest == 0:
        raise _nobody(evidence, registry, plugin)
    best = [(record, owner) for strength, record, owner in claims if strength == strongest]
    if strongest == NAME:
        best = _first_named(best, evidence)
    if len(best) > 1:
        # The files of one pipeline side by side: its main part stands for all of them.
        best = [(record, owner) for record, owner in best if pipelines_of(record, registry)] or best
    if len(best) > 1:
        owners = [f"{owner.distribution} ({record.name})" for record, owner in best]
        raise ContestedModel(
            f"{len(best)} plugins claim this model: {', '.join(owners)}.",
            where=evidence.origin,
            fix=f'choose one: bestiary.load(..., plugin="{best[0][1].distribution}"), or uninstall the other',
        )
    return best[0]


def pipelines_of(record: Architecture, registry: Registry) -> list[tuple[Architecture, Plugin]]:
    """The pipelines whose main part an architecture is."""
    known = registry.records(Architecture)
    return [(whole, owner) for whole, owner in known if whole.parts and record.name in whole.parts[0].architectures]


def _first_named(claims: list[tuple[Architecture, Plugin]], evidence: Evidence) -> list[tuple[Architecture, Plugin]]:
    """The claims by the first name of several in `architectures` that has one: a model may be had in lesser forms."""
    stated = _class_names(evidence)
    for place, name in enumerate(stated):
        if found := [claim for claim in claims if name in (claim[0].name, *claim[0].aliases)]:
            if place:
                log.warning(
                    "%s is loaded as %s, for no installed plugin provides %s: pip install %s",
                    *(evidence.origin, name, stated[0], distribution_of(stated[:1]) or "one that does"),
                )
            return found
    return claims


def _claim(record: Architecture, evidence: Evidence) -> int:
    opinion = _opinion(record, evidence)
    if opinion is not None:
        return PROBE if opinion else 0
    names = {record.name, *record.aliases}
    if evidence.gguf is not None:
        # Several architectures may be stored under one name: Mixtral's files also say "llama".
        stated = _class_names(evidence) or names
        known = any(form.architecture == evidence.gguf for form in record.gguf)
        return NAME if known and names.intersection(stated) else 0
    if evidence.model_index:
        return NAME if _text(evidence.model_index.get("_class_name")) in names else 0
    if evidence.shapes:
        return PROBE if described(record, evidence) is not None else 0
    stated = _class_names(evidence)
    if stated:
        return NAME if names.intersection(stated) else 0
    return TYPE if evidence.config.get("model_type") in record.model_types else 0


def _opinion(record: Architecture, evidence: Evidence) -> bool | None:
    if record.probe is None:
        return None
    try:
        return record.probe(evidence)
    except Exception:  # a probe reads files of strangers; when it fails, the names decide
        log.warning("the probe of %s failed on %s", record.name, evidence.origin, exc_info=True)
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _class_names(evidence: Evidence) -> tuple[str, ...]:
    stated = evidence.config.get("architectures")
    stated = stated or (evidence.model_index or evidence.config).get("_class_name")  # as diffusers has it
    if isinstance(stated, str):
        return (stated,)
    return tuple(name for name in stated if isinstance(name, str)) if isinstance(stated, Sequence) else ()


def _check_plugin(plugin: str, registry: Registry) -> None:
    known = {name for owner in registry.plugins for name in (owner.name, owner.distribution)}
    if plugin not in known:
        raise MissingPlugin(
            f'No installed plugin or distribution is called "{plugin}".',
            fix=f"`bestiary plugins` lists what is installed. {did_you_mean(plugin, known)}".rstrip(),
        )


def _nobody(evidence: Evidence, registry: Registry, plugin: str | None) -> Exception:
    stated = _class_names(evidence)
    model_type = _text(evidence.config.get("model_type"))
    what = (
        evidence.gguf
        or ("weights without a configuration" if evidence.shapes else None)
        or _text(evidence.model_index.get("_class_name"))
        or " or ".join(stated)
        or model_type
        or ("a PEFT adapter" if evidence.adapter else "a model without a stated architecture")
    )
    provider = distribution_of(stated, model_type)
    due = {provider} if plugin is None else {plugin}
    broken = next((owner for owner in registry.broken if due & {owner.name, owner.distribution}), None)
    if broken:
        return BrokenPlugin(
            f"{broken.distribution} provides {what} but failed to import: {broken.error}"
            if broken.distribution == provider
            else f"{broken.distribution} failed to import: {broken.error}",
            where=broken.module,
            fix=f"pip install --force-reinstall {broken.distribution}; `bestiary plugins --reasons` shows all of it",
            traceback=broken.traceback,
        )
    if provider and provider not in {owner.distribution for owner in registry.plugins}:
        limited = registry.only is not None
        return MissingPlugin(
            f"No {'chosen' if limited else 'installed'} plugin claims {what}.",
            where=evidence.origin,
            fix=f"add {provider} to BESTIARY_PLUGINS, or unset it" if limited else f"pip install {provider}",
        )
    claimed = [name for record, _ in registry.records(Architecture) for name in (record.name, *record.aliases)]
    near = did_you_mean(str(what), claimed)
    notes = "".join(f" {owner.distribution} is broken ({owner.error})." for owner in registry.broken)
    if evidence.config.get("auto_map"):
        notes += " The repository brings code of its own, which is never run."
    return MissingPlugin(
        f"No installed plugin claims {what}{f' (limited to {plugin})' if plugin else ''}.{notes}",
        where=evidence.origin,
        fix=f"install a plugin that provides it, or write one (docs/writing-a-plugin.md). {near}".rstrip(),
    )
