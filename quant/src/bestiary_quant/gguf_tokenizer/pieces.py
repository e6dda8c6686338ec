"""BPE over characters as SentencePiece has it (`tokenizer.ggml.model` llama): scores say what merges first."""

from __future__ import annotations

import tokenizers
from tokenizers import decoders, models, normalizers

from bestiary.errors import TokenizerError
from bestiary.generation.tokenizer_files import rust_edge
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.merges import Merge, merges_from_scores
from bestiary_quant.gguf_tokenizer.special import find_role
from bestiary_quant.gguf_tokenizer.vocabulary import NORMAL, Vocabulary, flag, numbers

SPACE = "\u2581"
"""What vocabularies of SentencePiece write for a space."""


def build_pieces(metadata: Metadata, vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    """Raises TokenizerError where the file has no scores."""
    scores = numbers(metadata, "scores", len(vocabulary.tokens))
    if scores is None:
        raise TokenizerError("The file has no 'tokenizer.ggml.scores'.", where=metadata.origin)
    free = {token: place for token, place in vocabulary.ids.items() if vocabulary.types[place] == NORMAL}
    merges = merges_from_scores(scores, free, metadata.origin)
    return character_level(metadata, vocabulary, merges, prefix=flag(metadata, "add_space_prefix", True))


def character_level(
    metadata: Metadata, vocabulary: Vocabulary, merges: list[Merge], *, prefix: bool
) -> tokenizers.Tokenizer:
    """The tokenizer that transformers makes of such models; `prefix` puts a space before each text."""
    unknown = find_role(metadata, vocabulary, "unk_token")
    with rust_edge("being built from pieces", metadata.origin):
        backend = tokenizers.Tokenizer(
            models.BPE(
                dict(vocabulary.ids),
                merges,
                unk_token=None if unknown is None else vocabulary.tokens[unknown],
                fuse_unk=True,
                byte_fallback=True,
            )
        )
        spaces = normalizers.Replace(" ", SPACE)
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
        steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend
