"""Text to token ids and back."""

import copy
import json
import secrets
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Self

import tokenizers

from bestiary.errors import RequestError, TokenizerError
from bestiary.generation.pieces import Pieces
from bestiary.generation.tokenizer_files import read_tokenizer, rust_edge
from bestiary.protocols import Repository

MAX_BYTES = 16 << 20
"""The longest text that `encode` takes unless told otherwise; the longest contexts in use are about half of it."""

_RELEASES = 1 << 14  # From this length on, a batch of one: `tokenizers` gives up the interpreter lock only for batches.


class Tokenizer:
    """A tokenizer of the `tokenizers` library with the meaning that the configuration files give to its tokens.

    tokenizer.json is taken as it is written, as PreTrainedTokenizerFast of transformers takes it.  The Llama classes of
    transformers 5 rebuild it instead and tokenize two leading spaces, and text after a special token, differently.

    Safe to use from several threads.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: Mapping[str, str] | None = None,
        clean_up: bool = False,
        origin: str = "",
    ) -> None:
        """`special_tokens` maps "bos_token" and its like to texts; `clean_up` removes spaces before punctuation."""
        self.origin = origin
        self.special_tokens: Mapping[str, str] = dict(special_tokens or {})
        """Named special tokens, as chat templates see them."""
        self.pieces = Pieces(backend)
        self.clean_up = clean_up
        self.backend = backend
        """The tokenizers library's own, for those who write its file; use the methods for texts of strangers."""
        added = backend.get_added_tokens_decoder()
        self._added = {place: token.content for place, token in added.items()}
        self._special_ids = frozenset(place for place, token in added.items() if token.special)
        self._plain: tokenizers.Tokenizer | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_repository(cls, repository: Repository) -> Self:
        """Raises TokenizerError where there is no tokenizer, with what would make one."""
        files = read_tokenizer(repository)
        return cls(files.backend, special_tokens=files.special_tokens, clean_up=files.clean_up, origin=files.origin)

    def encode(
        self,
        text: str,
        *,
        add_special_tokens: bool = True,
        allow_special: bool = True,
        max_bytes: int = MAX_BYTES,
        most: int | None = None,
    ) -> list[int]:
        """Token ids of a text.

        `add_special_tokens` adds what the tokenizer puts around a text (BOS; not wanted after a chat template).
        `allow_special=False` is for text of strangers: "<|im_start|>" in it becomes ordinary tokens.
        With `most`, a text whose beginning alone has far more tokens than that is refused before the rest is read.
        RequestError for a text above `max_bytes` of UTF-8 or with lone surrogates; TokenizerError where it is refused.
        """
        _check(text, max_bytes)
        if most is not None:
            # A text and its beginning differ at the border only; twice as many leaves no doubt.
            size = 16 * most
            while size < len(text):
                found = len(self.encode(text[:size], add_special_tokens=False, allow_special=allow_special))
                if found > 2 * most + 16:
                    raise RequestError(
                        f"The prompt has more than {found} tokens; the model's context holds {most}.",
                        fix="shorten the prompt, or choose a model with a longer one",
                    )
                size *= 4
        backend = self.backend if allow_special else self._without_special()
        with rust_edge("encoding", self.origin):
            if len(text) >= _RELEASES:
                return backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
            return backend.encode(text, add_special_tokens=add_special_tokens).ids

    def encode_after(self, text: str, *, allow_special: bool = True) -> list[int]:
        """Token ids of a text that follows another one: without the space that some tokenizers put before a text."""
        first = self.encode("\n", add_special_tokens=False, allow_special=allow_special)
        whole = self.encode("\n" + text, add_special_tokens=False, allow_special=allow_special)
        if whole[: len(first)] == first:
            return whole[len(first) :]
        return self.encode(
            text, add_special_tokens=False, allow_special=allow_special
        )  # the newline grew into the text

    def same_tokens(self, other: "Tokenizer") -> bool:
        """Whether every id stands for the same token in both, so that one model's tokens mean the same to another."""
        return bool(self.backend.get_vocab(True) == other.backend.get_vocab(True))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`; ids that no token has add nothing.

        Equal to transformers but for malformed UTF-8 of byte-fallback tokens: there the `tokenizers` library replaces
        every byte of the run, also of its whole characters, so that text already streamed would change.  Here the
        whole characters stay, and each broken one becomes one U+FFFD, as byte-level tokenizers have it.
        """
        with rust_edge("decoding", self.origin):
            # By id: the library compares texts, and misses special tokens that its normalizer spells "▁<s>" (Llama 2).
            spoken = [place for place in ids if not (skip_special_tokens and place in self._special_ids)]
            text = self.backend.decode(spoken, skip_special_tokens=False)
            if "\ufffd" in text and self.pieces.byte_fallback and self.pieces.local:
                text = self.pieces.join(spoken)
        if self.pieces.word_end:
            text = text.replace(self.pieces.word_end, " ").strip()
        return _clean_up(text) if self.clean_up else text

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id, added tokens included; a model may have more rows than that."""
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def token(self, token_id: int) -> str:
        """The token as the vocabulary spells it ("Ġthe"), which is not its text."""
        # The library spells an added token as its normalizer does: "▁<unk>".
        found = self._added.get(token_id)
        if found is None and 0 <= token_id < 1 << 32:
            found = self.backend.id_to_token(token_id)
        if found is None:
            raise TokenizerError(f"No token has the id {token_id}", where=self.origin)
        return found

    def id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it."""
        return self.backend.token_to_id(token)

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds in the middle of a text; it may begin or end inside a character."""
        self.token(token_id)
        return self.pieces.piece(token_id)

    def is_special(self, token_id: int) -> bool:
        """Whether the token controls rather than speaks; `decode` leaves those out."""
        return token_id in self._special_ids

    def special_texts(self) -> tuple[str, ...]:
        """The texts that become special tokens wherever `encode` may use these."""
        return tuple(self.token(place) for place in sorted(self._special_ids))

    @property
    def bos_token(self) -> str | None:
        return self.special_tokens.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        return self.special_tokens.get("eos_token")

    @property
    def pad_token(self) -> str | None:
        return self.special_tokens.get("pad_token")

    @property
    def unk_token(self) -> str | None:
        return self.special_tokens.get("unk_token")

    @property
    def bos_id(self) -> int | None:
        return self._named("bos_token")

    @property
    def eos_id(self) -> int | None:
        """Of the tokenizer; the model may end at more ids, which generation_config.json lists."""
        return self._named("eos_token")

    @property
    def pad_id(self) -> int | None:
        return self._named("pad_token")

    @property
    def unk_id(self) -> int | None:
        return self._named("unk_token")

    def _named(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self.backend.token_to_id(token)

    def _without_special(self) -> tokenizers.Tokenizer:
        """A second backend, because the switch in the library is a state that all threads would share."""
        with self._lock:
            if self._plain is None:
                with rust_edge("preparing for plain text", self.origin):
                    self._plain = _plain_copy(self.backend)
            return self._plain


def _plain_copy(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy that finds no special token in a text."""
    plain = copy.deepcopy(backend)
    plain.encode_special_tokens = True
    special = {token.content: place for place, token in backend.get_added_tokens_decoder().items() if token.special}
    if not any(place in plain.encode(text, add_special_tokens=False).ids for text, place in special.items()):
        return plain
    # The model itself can spell some special tokens: Unigram vocabularies list "</s>" like any piece.  In the copy
    # those entries get names that nobody can guess, and thus write.
    secret = {text: f"{secrets.token_hex(16)}-{place}" for text, place in special.items()}
    state = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        token["content"] = secret.get(token["content"], token["content"])
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {secret.get(text, text): place for text, place in model["vocab"].items()}
    else:
        model["vocab"] = [[secret.get(text, text), score] for text, score in model["vocab"]]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = secret.get(model["unk_token"], model["unk_token"])
    plain = tokenizers.Tokenizer.from_str(json.dumps(state))
    plain.encode_special_tokens = True
    return plain


def _check(text: str, max_bytes: int) -> None:
    if not isinstance(text, str):
        raise RequestError(f"A text is needed, not a {type(text).__name__}")
    size = len(text)
    if size <= max_bytes and not text.isascii():
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise RequestError(
                f"The text is not valid Unicode: a lone surrogate (U+{ord(text[error.start]):04X}) at {error.start}"
            ) from None
    if size > max_bytes:
        raise RequestError(f"The text has at least {size} bytes; at most {max_bytes} are taken")


# The replacements of transformers' clean_up_tokenization (tokenization_utils_base.py), in its order.
_CLEAN_UP = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")),
)


def _clean_up(text: str) -> str:
    for old, new in _CLEAN_UP:
        text = text.replace(old, new)
    return text
