"""What GGUF files say of merging: the merges themselves, or scores of pieces from which they follow.

SentencePiece numbers its pieces in the order in which it made them, and scores each with less one for each before it.
A tokenizer.json has the merges alone; where their order is that of the ids, which it is for every vocabulary that was
not rearranged, the scores of the original come out, else each piece gets its rank.  llama.cpp's own converter takes the
scores of tokenizer.model, and writes -1000 for every piece where only a tokenizer.json lies there
(gguf-py/gguf/vocab.py, LlamaHfVocab), by which nothing can be merged rightly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from bestiary.errors import TokenizerError, shown
from bestiary_quant.gguf_tokenizer.pieces import SPACE
from bestiary_quant.gguf_tokenizer.vocabulary import NORMAL, UNUSED, USER_DEFINED
from bestiary_quant.writing.tokens import Tokens

UNUSED_SCORE, ADDED_SCORE = -10000.0, -1000.0
"""Those of rows without a token, and of added tokens, in llama.cpp's converter."""
LAST_SCORE = -1e9
"""That of rows of spaces where they are merged after everything else, as in the vocabularies of Llama and Mistral."""


def merge_pairs(merges: Iterable[Any], origin: str) -> list[tuple[str, str]]:
    """Both spellings of tokenizer.json: "a b", and ["a", "b"]."""
    made = []
    for merge in merges:
        left, _, right = merge.partition(" ") if isinstance(merge, str) else (*merge[:1], "", *merge[1:])
        if not left or not right:
            raise TokenizerError(f"The merge {shown(merge)} is not two tokens.", where=origin)
        made.append((left, right))
    return made


def merge_texts(merges: Sequence[tuple[str, str]], origin: str) -> list[str]:
    """As the file has them, with a space between.  Raises TokenizerError for tokens that hold one."""
    if any(" " in part for pair in merges for part in pair):
        raise TokenizerError("A merge of the tokenizer holds a space, which files cannot say.", where=origin)
    return [f"{left} {right}" for left, right in merges]


def scores_of_merges(tokens: Tokens, merges: Sequence[tuple[str, str]]) -> list[float]:
    """A score for every row, by which merging takes the order of the merges."""
    made = list(dict.fromkeys(left + right for left, right in merges))
    words = [tokens.ids[piece] for piece in made if piece in tokens.ids and piece.strip(SPACE)]
    rows_of_spaces = [piece for piece in made if not piece.strip(SPACE)]
    scores = [_default(kind) for kind in tokens.types]
    normal = [place for place, kind in enumerate(tokens.types) if kind == NORMAL]
    last = made[len(made) - len(rows_of_spaces) :] == rows_of_spaces
    if last and all(before < after for before, after in pairwise(words)):
        for place in normal:
            scores[place] = float(normal[0] - place) if tokens.texts[place].strip(SPACE) else LAST_SCORE
        return scores
    ranks = {tokens.ids[piece]: rank for rank, piece in enumerate(made) if piece in tokens.ids}
    for place in normal:
        scores[place] = -float(ranks.get(place, len(made)))
    return scores


def _default(kind: int) -> float:
    return {UNUSED: UNUSED_SCORE, USER_DEFINED: ADDED_SCORE}.get(kind, 0.0)
