"""The tokens of a GGUF file, and arrays of its metadata that must agree with them.

The keys and the types of tokens are those of llama.cpp (gguf-py/gguf/constants.py, src/llama-vocab.cpp).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from bestiary.errors import TokenizerError, shown
from bestiary_quant.gguf.metadata import Metadata

PREFIX = "tokenizer.ggml."
MAX_TOKENS = 1 << 19
"""The largest vocabularies in use have 262,144 tokens."""
MAX_MERGES = 1 << 21
"""The largest vocabularies in use have 514,906 merges."""
MAX_LENGTH = 1 << 14
"""Characters of a token; the longest in use, rows of spaces, have 512."""
MAX_TEXT = 1 << 24
"""Characters of all tokens together; the largest vocabularies in use have 1.5 million."""

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_FILLER = re.compile(r"\[PAD\d+\]")


@dataclass(frozen=True)
class Vocabulary:
    """Every row of the embedding: its text, and its type."""

    tokens: Sequence[str]
    types: Sequence[int]
    typed: bool
    """Whether the file states types; without, every token is NORMAL."""
    origin: str

    @cached_property
    def absent(self) -> frozenset[int]:
        """Rows that no token of the model belongs to: converters fill them up with [PAD0], [PAD1] ..."""
        if all(self.tokens) and "[PAD" not in "".join(self.tokens):
            return frozenset()
        return frozenset(
            place
            for place, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if not token or (kind not in (NORMAL, CONTROL) and _FILLER.fullmatch(token))
        )

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """By text; raises TokenizerError where two tokens have the same."""
        made = dict(zip(self.tokens, range(len(self.tokens)), strict=True))
        if self.absent:
            made = {token: place for place, token in enumerate(self.tokens) if place not in self.absent}
        if len(made) != len(self.tokens) - len(self.absent):
            counts = Counter(token for place, token in enumerate(self.tokens) if place not in self.absent)
            raise TokenizerError(f"Two tokens are {shown(counts.most_common(1)[0][0])}.", where=self.origin)
        return made


def read_vocabulary(metadata: Metadata) -> Vocabulary:
    """Raises TokenizerError where the file has no tokens, too many of them, or types that do not go with them."""
    tokens = strings(metadata, "tokens", MAX_TOKENS)
    if not tokens:
        raise TokenizerError("The file has no tokens.", where=metadata.origin)
    if max(map(len, tokens)) > MAX_LENGTH or sum(map(len, tokens)) > MAX_TEXT:
        raise TokenizerError(
            f"A token has {max(map(len, tokens))} characters and all have {sum(map(len, tokens))}; "
            f"{MAX_LENGTH} and {MAX_TEXT} are allowed.",
            where=metadata.origin,
        )
    types = numbers(metadata, "token_type", len(tokens))
    if types is None:
        return Vocabulary(tokens, [NORMAL] * len(tokens), False, metadata.origin)
    kinds = set(types)
    if strange := kinds.difference(range(BYTE + 1)):
        raise TokenizerError(f"A token has the unknown type {shown(min(strange))}.", where=metadata.origin)
    if 0 in kinds or isinstance(types[0], float):
        types = [int(kind) or NORMAL for kind in types]
    return Vocabulary(tokens, cast("list[int]", types), True, metadata.origin)


def strings(metadata: Metadata, name: str, most: int) -> list[str]:
    """An array of strings.  Raises TokenizerError for anything else, before it is read where it is too long."""
    key = array_key(metadata, name, most)
    found = metadata[key]
    if not isinstance(found, list):
        raise TokenizerError(f"The metadata {key!r} holds numbers; strings are due.", where=metadata.origin)
    return found


def array_key(metadata: Metadata, name: str, most: int) -> str:
    """The key of an array of up to `most` items.  Raises TokenizerError for anything else, and for a longer one."""
    key = PREFIX + name
    count = metadata.count(key)
    if count is None:
        what = f"The metadata {key!r} is no array" if key in metadata else f"The file has no {key!r}"
        raise TokenizerError(f"{what}, and its tokenizer needs one.", where=metadata.origin)
    if count > most:
        raise TokenizerError(f"The metadata {key!r} has {count} items; {most} are allowed.", where=metadata.origin)
    return key


def numbers(metadata: Metadata, name: str, due: int) -> list[float] | list[int] | None:
    """An array of one finite number for each token, or None where there is none.  Raises TokenizerError."""
    key = PREFIX + name
    if key not in metadata:
        return None
    if (count := metadata.count(key)) != due:
        said = "no array" if count is None else f"an array of {count}"
        raise TokenizerError(f"The metadata {key!r} is {said}, for {due} tokens.", where=metadata.origin)
    import numpy

    found = metadata[key]
    if not isinstance(found, numpy.ndarray) or found.dtype.kind not in "iuf" or not numpy.isfinite(found).all():
        raise TokenizerError(f"The metadata {key!r} does not hold finite numbers.", where=metadata.origin)
    made: list[float] | list[int] = found.tolist()
    return made


def flag(metadata: Metadata, name: str, default: bool) -> bool:
    """Yes or no.  Raises TokenizerError for anything else."""
    key = PREFIX + name
    if key not in metadata:
        return default
    value = metadata[key] if metadata.count(key) is None else None
    if not isinstance(value, bool):
        raise TokenizerError(f"The metadata {key!r} must be true or false.", where=metadata.origin)
    return value
