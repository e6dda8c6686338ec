"""The tokens of a model as llguidance sees them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from bestiary.errors import TokenizerError
from bestiary.generation.constraints.rust import import_llguidance, rust_call
from bestiary.generation.tokenizer import Tokenizer

_FORCED = 8192  # Characters of a text without a choice that are tokenized at once.


class Vocabulary:
    """What each row of the logits adds to a text.

    The bytes come from the tokenizer's pieces, so that a text is spelled here as it is decoded: with byte-level,
    byte-fallback and metaspace tokenizers alike, and with added tokens that are not special as plain text
    ("<tool_call>").  llguidance's own reading of tokenizer.json differs in those, and does not know metaspace decoders.

    Special tokens, tokens that end a text, and rows without a token add nothing; a grammar may name them.
    """

    def __init__(self, tokenizer: Tokenizer, rows: int, end_tokens: Iterable[int]) -> None:
        """`rows` is the width of the logits, which may exceed the tokens of the tokenizer, or fall short of them."""
        if not tokenizer.pieces.local:
            raise TokenizerError(
                "A text of this tokenizer is not the sum of its tokens, so that none can be constrained.",
                where=tokenizer.origin,
            )
        self.rows = rows
        self.tokenizer = tokenizer
        self.end_tokens = tuple(sorted({token for token in end_tokens if 0 <= token < rows}))
        self._size = max(rows, tokenizer.vocab_size)
        self._lock = threading.Lock()
        self._engine: Any = None

    @property
    def engine(self) -> Any:
        """The LLTokenizer: built at the first use, which takes up to a second for 150 000 tokens."""
        with self._lock:
            if self._engine is None:
                with rust_call("building its trie of tokens"):
                    self._engine = self._built()
        return self._engine

    @cached_property
    def first_tokens(self) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        """For each token the one that reads in the middle of a text as this one reads at its start; -1 where none does.

        Metaspace tokenizers drop a space there: the answer "▁Yes" of Llama 2 is "Yes".  None where no token differs.
        """
        pieces, strip = self.tokenizer.pieces, self.tokenizer.pieces.strip
        by_bytes: dict[bytes, int] = {}
        found = np.arange(self.rows)
        differing = []
        for token in range(min(self.rows, self.tokenizer.vocab_size)):
            if token in self._silent:
                continue
            piece, first = pieces.piece(token), pieces.first(token)
            first = first[min(strip, len(first) - len(first.lstrip(b" "))) :]
            by_bytes.setdefault(piece, token)
            if first != piece:
                differing.append((token, first))
        for token, first in differing:
            found[token] = by_bytes.get(first, -1) if first else -1
        return found if differing else None

    @cached_property
    def _silent(self) -> frozenset[int]:
        special = {token for token in range(self.tokenizer.vocab_size) if self.tokenizer.is_special(token)}
        return frozenset(special | set(self.end_tokens))

    def _built(self) -> Any:
        llguidance = import_llguidance()
        adapter = _Adapter(self.tokenizer, self._size, self._silent)
        ends = list(self.end_tokens)
        adapter.eos_token_id = ends[0] if ends else None
        adapter.engine = llguidance.LLTokenizer(llguidance.TokenizerWrapper(adapter), eos_token=ends or None)
        return adapter.engine


class _Adapter:
    """A tokenizer with the attributes that llguidance.TokenizerWrapper asks for."""

    bos_token_id = None
    eos_token_id: int | None = None
    engine: Any = None

    def __init__(self, tokenizer: Tokenizer, size: int, silent: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self.special_token_ids = sorted(silent)
        self.tokens: Sequence[bytes] = [
            self._name(token) if token in silent else tokenizer.pieces.piece(token) for token in range(size)
        ]

    def _name(self, token: int) -> bytes:
        known = token < self._tokenizer.vocab_size
        return (self._tokenizer.token(token) if known else f"<[{token}]>").encode()

    def __call__(self, text: bytes | str) -> list[int]:
        """The usual tokens of a text that has no alternative.

        They must join to the text, which a tokenizer that normalizes, or lacks a character, does not see to.  Where no
        tokens do, a special one says so: `ConstraintState` finds it out of place, and ends there.
        """
        spoken = text.decode("utf-8", "ignore") if isinstance(text, bytes) else text
        spoken = spoken[:_FORCED]  # A longer one is asked for again at each token; so the cost stays linear.
        for spell in (self._usual, self._greedy):
            tokens = spell(spoken)
            if b"".join(self.tokens[token] for token in tokens) == spoken.encode():
                return tokens
        return self.special_token_ids[:1]

    def _usual(self, text: str) -> list[int]:
        try:
            return self._tokenizer.encode_after(text, allow_special=False)
        except Exception:  # here it would become a panic there
            return []

    def _greedy(self, text: str) -> list[int]:
        return [] if self.engine is None else self.engine.greedy_tokenize(text)
