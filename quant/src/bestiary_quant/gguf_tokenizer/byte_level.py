"""Byte-level BPE (`tokenizer.ggml.model` gpt2), and BPE over characters in which a space is a letter (gemma4)."""

from __future__ import annotations

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from bestiary.generation.tokenizer_files import rust_edge
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.merges import parted_merges, read_merges
from bestiary_quant.gguf_tokenizer.pieces import SPACE, character_level
from bestiary_quant.gguf_tokenizer.splits import SPACED, find_split
from bestiary_quant.gguf_tokenizer.vocabulary import USER_DEFINED, Vocabulary


def build_byte_level(metadata: Metadata, vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    """Every byte is a letter.  Raises TokenizerError for a `tokenizer.ggml.pre` that is not known."""
    way = metadata.text("tokenizer.ggml.pre")
    if way in SPACED:
        return build_spaced(metadata, vocabulary)
    split = find_split(way, metadata.origin)
    model = _checked_by_library(metadata, vocabulary, split.whole)
    merges = read_merges(metadata, vocabulary.ids) if model is None else []
    with rust_edge("being built from merges", metadata.origin):
        backend = tokenizers.Tokenizer(model or models.BPE(dict(vocabulary.ids), merges, ignore_merges=split.whole))
        if split.composed:
            backend.normalizer = normalizers.NFC()
        cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        backend.decoder = decoders.ByteLevel()
    return backend


def _checked_by_library(metadata: Metadata, vocabulary: Vocabulary, whole: bool) -> models.BPE | None:
    """The model of merges that the library finds sound, as it also looks for their tokens; None: read them one by one.

    Half of the time that a model takes to load is that of its tokenizer, and this is the shorter way.
    """
    merges = parted_merges(metadata)
    if merges is None:
        return None
    try:
        return models.BPE(dict(vocabulary.ids), merges, ignore_merges=whole)
    except Exception:  # of no type of its own; who reads merges one by one says which it is
        return None


def build_spaced(metadata: Metadata, vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    """Every character is a letter, bytes stand in for those that no token has, and the file states the merges."""
    # Rows of spaces are found in the text before anything is merged; merges still spell them as the model's files do.
    rows = {
        token.replace(" ", SPACE)
        for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
        if kind == USER_DEFINED
    }
    return character_level(metadata, vocabulary, read_merges(metadata, vocabulary.ids, rows), prefix=False)
