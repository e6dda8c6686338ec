"""What some weight files carry of a text model besides its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bestiary.generation.tokenizer import Tokenizer
from bestiary.identity import best_loader
from bestiary.loading import Identified
from bestiary.records import resolve


@dataclass(frozen=True)
class CarriedText:
    """The tokenizer, the jinja texts of chat templates by name, and the ids that end an answer."""

    tokenizer: Tokenizer
    chat_templates: Mapping[str, str]
    end_tokens: frozenset[int]


def carried_text(identified: Identified) -> CarriedText | None:
    """What the weight files of a model carry, where their format does; they are one with the weights."""
    files = identified.repository.files()
    loader = best_loader(files, identified.registry)
    if loader is None or loader.text is None:
        return None
    name = next(name for name in files if name.endswith(loader.suffixes))
    found: CarriedText = resolve(loader.text)(identified.repository, name)
    return found
