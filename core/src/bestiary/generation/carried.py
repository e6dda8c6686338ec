"""What some weight files carry of a text model besides its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bestiary.generation.tokenizer import Tokenizer
from bestiary.identified import Identified
from bestiary.identity import best_loader, first_file
from bestiary.protocols import Repository
from bestiary.records import resolve
from bestiary.registry import Registry


@dataclass(frozen=True)
class CarriedText:
    """The tokenizer, the jinja texts of chat templates by name, and the ids that end an answer."""

    tokenizer: Tokenizer
    chat_templates: Mapping[str, str]
    end_tokens: frozenset[int]


def carried_text(identified: Identified) -> CarriedText | None:
    """What the weight files of a model carry, where their format does; they are one with the weights."""
    return carried_by(identified.repository, identified.registry)


def carried_by(repository: Repository, registry: Registry) -> CarriedText | None:
    """What the weight files of a repository carry, whatever model it holds."""
    loader = best_loader(repository, registry)
    if loader is None or loader.text is None:
        return None
    found: CarriedText = resolve(loader.text)(repository, first_file(repository, loader))
    return found
