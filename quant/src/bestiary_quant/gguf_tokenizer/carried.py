"""What a GGUF file carries of a text model besides its weights."""

from __future__ import annotations

import logging

from bestiary.errors import TokenizerError
from bestiary.generation.carried import CarriedText
from bestiary.generation.tokenizer import Tokenizer
from bestiary.protocols import Repository
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf.parts import close_parts, read_parts
from bestiary_quant.gguf.selection import files
from bestiary_quant.gguf_tokenizer.reading import has_tokenizer, read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.special import end_ids
from bestiary_quant.gguf_tokenizer.templates import chat_templates
from bestiary_quant.gguf_tokenizer.vocabulary import read_vocabulary

log = logging.getLogger("bestiary.quant")


def carried_text(repository: Repository, name: str) -> CarriedText:
    """The tokenizer, the templates and the ends of the model of a repository; `name` may be any of its .gguf files.

    Where the file has no tokenizer that can be rebuilt, tokenizer.json beside it serves.  Raises TokenizerError,
    TemplateError or CheckpointError.
    """
    parts = read_parts(repository, files(repository), fetch=False)
    try:
        metadata = parts[0].header.metadata
        tokenizer, ends = _tokenizer(metadata, repository)
        return CarriedText(tokenizer, chat_templates(metadata), ends)
    finally:
        close_parts(parts)


def _tokenizer(metadata: Metadata, repository: Repository) -> tuple[Tokenizer, frozenset[int]]:
    try:
        vocabulary = read_vocabulary(metadata) if has_tokenizer(metadata) else None
        return read_gguf_tokenizer(metadata, vocabulary), end_ids(metadata, vocabulary)
    except TokenizerError as error:
        if "tokenizer.json" not in repository.files():
            raise
        log.warning("%s: %s tokenizer.json is taken instead", metadata.origin, error.what)
        return Tokenizer.from_repository(repository), frozenset()
