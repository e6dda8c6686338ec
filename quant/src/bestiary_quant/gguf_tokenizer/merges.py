"""Which pairs of tokens become one, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bestiary.errors import TokenizerError, shown
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.vocabulary import MAX_MERGES, array_key, strings

Merge = tuple[str, str]
MAX_WORK = 1 << 26
"""Squares of the lengths of all pieces together, the work of finding merges; the largest in use have 11 million."""


def read_merges(metadata: Metadata, known: Mapping[str, int], unreachable: Collection[str] = ()) -> list[Merge]:
    """The merges of `tokenizer.ggml.merges`, the first of which goes before all others.

    Those with one of the texts `unreachable` are left out.  TokenizerError for any other that is not two known tokens
    that make a third.
    """
    made = []
    for merge in strings(metadata, "merges", MAX_MERGES):
        place = merge.find(" ", 1)  # the first character may be a space itself
        left, right = merge[:place], merge[place + 1 :]
        if place > 0 and left in known and right in known and left + right in known:
            made.append((left, right))
        elif not {left, right, left + right}.intersection(unreachable):
            raise TokenizerError(
                f"The merge {shown(merge)} is not two tokens that make a third.",
                where=metadata.origin,
                fix="take another file of the model, or convert it again",
            )
    return made


def parted_merges(metadata: Metadata) -> list[Merge] | None:
    """The merges of a file in which no space is a letter, none of them compared with the tokens; None: of any other."""
    return metadata.halves(array_key(metadata, "merges", MAX_MERGES))


def merges_from_scores(scores: Sequence[float], ids: Mapping[str, int], origin: str) -> list[Merge]:
    """The merges that a vocabulary of SentencePiece implies: any two pieces that make a third, by its score.

    `ids` are those of the pieces that may be merged.  Of the ways to make one piece the longest left part goes first,
    as transformers writes such merges to a tokenizer.json.  SentencePiece takes the leftmost of pieces with one score,
    which ranks cannot say; here the smaller id goes first.
    """
    if sum(len(piece) ** 2 for piece in ids) > MAX_WORK:
        raise TokenizerError("The pieces of the vocabulary are too long to be merged from parts.", where=origin)
    return [
        (left, right)
        for piece in sorted(ids, key=lambda piece: (-scores[ids[piece]], ids[piece]))
        for cut in range(len(piece) - 1, 0, -1)
        if (left := piece[:cut]) in ids and (right := piece[cut:]) in ids
    ]
