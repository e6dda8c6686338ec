"""WordPiece (`tokenizer.ggml.model` bert)."""

from __future__ import annotations

from dataclasses import replace

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from bestiary.errors import TokenizerError
from bestiary.generation.tokenizer_files import rust_edge
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.pieces import SPACE
from bestiary_quant.gguf_tokenizer.special import find_role
from bestiary_quant.gguf_tokenizer.vocabulary import CONTROL, UNKNOWN, Vocabulary, flag


def build_words(metadata: Metadata, vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    """Of a vocabulary that is `respelled`.  Raises TokenizerError where there is no unknown token."""
    unknown = find_role(metadata, vocabulary, "unk_token")
    if unknown is None:
        raise TokenizerError("The file has no unknown token.", where=metadata.origin)
    lower = flag(metadata, "normalizer.lowercase", True)
    accents = flag(metadata, "normalizer.strip_accents", lower)
    ids = dict(vocabulary.ids)
    with rust_edge("being built from words", metadata.origin):
        backend = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=vocabulary.tokens[unknown]))
        backend.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=accents)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
    return backend


def respelled(vocabulary: Vocabulary) -> Vocabulary:
    """The tokens as WordPiece spells them: files mark the beginnings of words, the model marks what goes on."""
    pairs = zip(vocabulary.tokens, vocabulary.types, strict=True)
    return replace(vocabulary, tokens=[_respell(token, kind) for token, kind in pairs])


def _respell(token: str, kind: int) -> str:
    if len(token) > 1 and token.startswith(SPACE):
        return token[1:]
    return token if kind in (CONTROL, UNKNOWN) or not token else f"##{token}"
