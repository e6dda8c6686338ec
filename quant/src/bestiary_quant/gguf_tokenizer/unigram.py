"""The Unigram model of SentencePiece (`tokenizer.ggml.model` t5), as T5 and XLM-RoBERTa have it."""

from __future__ import annotations

from typing import Literal

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from bestiary.errors import TokenizerError
from bestiary.generation.tokenizer_files import rust_edge
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.pieces import SPACE
from bestiary_quant.gguf_tokenizer.special import find_role
from bestiary_quant.gguf_tokenizer.vocabulary import BYTE, PREFIX, Vocabulary, flag, numbers

MAX_TEXT = 3 << 20
"""Bytes of all pieces together, for each may become a node of the model's tree; those of T5 have 270,000."""
MAX_PIECE = 1024
"""Bytes of a piece; a text takes as many steps for each character."""
MAX_CHARSMAP = 1 << 24
"""Bytes; that of SentencePiece's usual normal form has 240,000."""


def build_unigram(metadata: Metadata, vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    """Raises TokenizerError where scores or the unknown token are absent, and for a malformed charsmap."""
    scores = numbers(metadata, "scores", len(vocabulary.tokens))
    unknown = find_role(metadata, vocabulary, "unk_token")
    if scores is None or unknown is None:
        raise TokenizerError("The file has no scores of its tokens, or no unknown token.", where=metadata.origin)
    sizes = [len(token.encode()) for token in vocabulary.tokens]
    if sum(sizes) > MAX_TEXT or max(sizes) > MAX_PIECE:
        raise TokenizerError(
            f"A piece has {max(sizes)} bytes and all have {sum(sizes)}; {MAX_PIECE} and {MAX_TEXT} are allowed.",
            where=metadata.origin,
        )
    # A row without a token gets a piece with a space, which no text has any more when it is cut into pieces; its score
    # must not be the worst, from which that of unknown characters follows.  At the end there need not be any.
    pieces = [
        (f"row {place}", 0.0) if place in vocabulary.absent else (token, scores[place])
        for place, token in enumerate(vocabulary.tokens[: max(vocabulary.ids.values(), default=-1) + 1])
    ]
    prefix, merged = flag(metadata, "add_space_prefix", False), flag(metadata, "remove_extra_whitespaces", False)
    scheme: Literal["always", "never"] = "always" if prefix else "never"
    charsmap = _charsmap(metadata)
    with rust_edge("being built from scored pieces", metadata.origin):
        backend = tokenizers.Tokenizer(models.Unigram(pieces, unknown, BYTE in vocabulary.types))
        forms: list[normalizers.Normalizer] = [normalizers.Precompiled(charsmap)] if charsmap else []
        cuts: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Metaspace(SPACE, scheme)]
        if merged and prefix:  # as in the tokenizer.json files of T5 and XLM-RoBERTa
            cuts.insert(0, pre_tokenizers.WhitespaceSplit())
        elif merged:
            forms += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
        backend.normalizer = normalizers.Sequence(forms)
        backend.pre_tokenizer = pre_tokenizers.Sequence(cuts)
        backend.decoder = decoders.Metaspace(SPACE, scheme)
    return backend


def _charsmap(metadata: Metadata) -> bytes:
    """`precompiled_charsmap`: the length of a table of 32-bit words, the table, and texts that end in a zero byte."""
    key = f"{PREFIX}precompiled_charsmap"
    if key not in metadata:
        return b""
    import numpy

    stated = metadata[key] if (metadata.count(key) or MAX_CHARSMAP) < MAX_CHARSMAP else None
    if not isinstance(stated, numpy.ndarray) or stated.dtype.itemsize != 1:
        raise TokenizerError(f"The metadata {key!r} are not up to {MAX_CHARSMAP} bytes.", where=metadata.origin)
    charsmap = stated.tobytes()
    table = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) < 9 or table % 4 or not table or 4 + table >= len(charsmap) or charsmap[-1]:
        raise TokenizerError(f"The metadata {key!r} are malformed.", where=metadata.origin)
    return charsmap
