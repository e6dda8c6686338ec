"""What a GGUF file carries of a text model besides its weights."""

from __future__ import annotations

from bestiary.generation.carried import CarriedText
from bestiary.protocols import Repository
from bestiary_quant.gguf.parts import close_parts, read_parts
from bestiary_quant.gguf.selection import files
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.special import end_ids
from bestiary_quant.gguf_tokenizer.templates import chat_templates


def text_of(repository: Repository, name: str) -> CarriedText:
    """Tokenizer, chat templates and the ids that end an answer; `name` may be any .gguf file of the model."""
    parts = read_parts(repository, files(repository), fetch=False)
    try:
        metadata = parts[0].header.metadata
        return CarriedText(read_gguf_tokenizer(metadata), chat_templates(metadata), end_ids(metadata))
    finally:
        close_parts(parts)
