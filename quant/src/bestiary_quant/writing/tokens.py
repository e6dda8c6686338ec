"""Every row of the embedding as GGUF has it: a text, a type and perhaps a score.

From llama.cpp's converter (conversion/base.py, get_vocab_base and _create_vocab_sentencepiece).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestiary.errors import TokenizerError, shown
from bestiary_quant.gguf_tokenizer.pieces import SPACE
from bestiary_quant.gguf_tokenizer.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

log = logging.getLogger("bestiary_quant.writing")

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Tokens:
    """The rows, by id."""

    texts: Sequence[str]
    types: Sequence[int]
    ids: Mapping[str, int]
    """By the text that the tokenizer itself has."""


def list_tokens(state: Mapping[str, Any], rows: int, origin: str) -> Tokens:
    """The tokens of a tokenizer.json, filled up to the `rows` of the embedding, or cut to them where these are added.

    Raises TokenizerError where tokens of the model itself have no row, or two would have one text.
    """
    model, byte_fallback = state["model"], bool(state["model"].get("byte_fallback"))
    unknown = model.get("unk_token")
    if model["type"] == "Unigram":
        ids = {piece: place for place, (piece, _) in enumerate(model["vocab"])}
        place = model.get("unk_id")
        unknown = model["vocab"][place][0] if place is not None else None
    else:
        ids = dict(model["vocab"])
    added = {token["id"]: token for token in state.get("added_tokens") or ()}
    last = max((*ids.values(), *added), default=-1)
    count = rows
    beyond = last + 1 - count
    if beyond > 0 and (beyond > len(added) or any(place not in added for place in range(count, last + 1))):
        raise TokenizerError(f"The tokenizer has ids up to {last}, and the embedding {count} rows.", where=origin)
    if beyond > 0:
        log.warning("%s: %d added tokens have no row in the embedding and are left out", origin, beyond)
    texts = [f"[PAD{place}]" for place in range(count)]
    types = [UNUSED] * count
    for token, place in ids.items():
        if place < count:
            texts[place] = token
            kind = BYTE if (byte_fallback or model["type"] == "Unigram") and _BYTE.fullmatch(token) else NORMAL
            types[place] = UNKNOWN if token == unknown and (byte_fallback or model["type"] == "Unigram") else kind
    pieces = byte_fallback or model["type"] == "Unigram"
    for place, entry in added.items():
        if place < count:
            token = entry["content"]
            types[place] = CONTROL if entry.get("special") else USER_DEFINED
            if token == unknown and pieces:
                types[place] = UNKNOWN
            texts[place] = token if entry.get("special") or not pieces else token.replace(SPACE, " ")
    if len(set(texts)) != count:
        raise TokenizerError(f"Two tokens would be {shown(Counter(texts).most_common(1)[0][0])}.", where=origin)
    return Tokens(texts, types, {**ids, **{entry["content"]: place for place, entry in added.items()}})
