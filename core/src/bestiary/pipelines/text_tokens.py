"""Where a text model's tokenizer and chat template come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bestiary.errors import OptionError, TokenizerError, shown
from bestiary.generation.carried import carried_by, carried_text
from bestiary.generation.tokenizer import Tokenizer
from bestiary.identified import Identified
from bestiary.protocols import Repository
from bestiary.sources.overlay import Overlay


@dataclass(frozen=True)
class Spoken:
    """A tokenizer, and what came with it."""

    tokenizer: Tokenizer
    repository: Repository
    """Where chat templates lie."""
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    """Those that weight files carry, by name."""
    end_tokens: frozenset[int] = frozenset()


def spoken(identified: Identified) -> Spoken:
    """The tokenizer of a model: what `tok_model_id` or `tokenizer_json` names, else its own.

    `tok_model_id` is another repository, from which the chat template comes too; `tokenizer_json` a file in place of
    the repository's.  Raises TokenizerError and OptionError.
    """
    id, file = (identified.options.get(name) for name in ("tok_model_id", "tokenizer_json"))
    for name, value in (("tok_model_id", id), ("tokenizer_json", file)):
        if value is not None and not isinstance(value, str | Path):
            raise OptionError(f"{name} is {shown(value)}; {'an id' if value is id else 'a path'} is due.")
    if id is not None:
        if file is not None:
            raise OptionError("tok_model_id and tokenizer_json both name a tokenizer.", fix="give one of them")
        repository = identified.repository_of(str(id))
        carried = carried_by(repository, identified.registry)
    elif file is not None:
        if not Path(file).is_file():
            raise TokenizerError("There is no such file.", where=file, fix="give the path of a tokenizer.json")
        repository, carried = Overlay(identified.repository, {"tokenizer.json": Path(file)}), None
    else:
        repository, carried = identified.repository, carried_text(identified)
    if carried is None:
        return Spoken(Tokenizer.from_repository(repository), repository)
    return Spoken(carried.tokenizer, repository, carried.chat_templates, carried.end_tokens)
