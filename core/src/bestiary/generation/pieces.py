"""What each token adds to a text, as bytes."""

import json
from typing import Any

import tokenizers


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-ins of the 256 byte values: GPT-2's table (openai/gpt-2, encoder.py, bytes_to_unicode)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(value): value for value in printable}
    others = [value for value in range(256) if chr(value) not in table]
    return table | {chr(256 + place): value for place, value in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _steps(decoder: Any) -> list[dict[str, Any]]:
    """The decoder of a tokenizer as a flat list of its serialized steps."""
    if decoder is None:
        return []
    state = json.loads(decoder.__getstate__())
    flat: list[dict[str, Any]] = []
    pending = [state]
    while pending:
        step = pending.pop(0)
        if step.get("type") == "Sequence":
            pending[:0] = step["decoders"]
        else:
            flat.append(step)
    return flat


class Pieces:
    """Token by token decoding for the tokenizers in which that has a meaning.

    `local` says whether a text is the concatenation of its pieces (byte-level, byte-fallback and metaspace decoders,
    that is: every decoder in use for generation).  Where it is False, as for WordPiece with its clean-up of spaces,
    the pieces are the best approximation, and only a decode of the whole is exact.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self._cache: dict[int, bytes] = {}
        self._replace: list[tuple[str, str]] = []
        self._byte_level = self.byte_fallback = False
        self._metaspace = self._prefix = self._suffix = ""
        self._drops_first_spaces = False
        self.strip = 0
        """How many spaces, at most, the decoder removes from the start of the whole text."""
        self.word_end = ""
        """CLIP's mark for the end of a word, which its decoder leaves in the text."""
        self.local = True
        steps = _steps(backend.decoder)
        fused = False
        for step in steps:
            match step:
                case {"type": "ByteLevel"} if len(steps) == 1:
                    self._byte_level = True
                    self.word_end = getattr(backend.model, "end_of_word_suffix", None) or ""
                    self.local = not self.word_end
                case {"type": "Replace", "pattern": {"String": old}, "content": new} if not fused:
                    self._replace.append((old, new))
                case {"type": "ByteFallback"}:
                    self.byte_fallback = True
                case {"type": "Fuse"}:
                    fused = True
                case {"type": "Strip", "content": " ", "start": start, "stop": 0} if fused:
                    self.strip = start
                case {"type": "Metaspace", "replacement": mark} if len(steps) == 1:
                    self._metaspace = mark
                    scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
                    self._drops_first_spaces = scheme != "never"
                case {"type": "WordPiece"}:
                    self._prefix, self.local = step.get("prefix", "##"), False
                case {"type": "BPEDecoder"}:
                    self._suffix, self.local = step.get("suffix", "</w>"), False
                case _:
                    self.local = False
        if not steps:
            self.local = False  # Without a decoder the tokens are joined with spaces.

    def piece(self, token_id: int) -> bytes:
        """The bytes that a token adds; empty for an id that no token has.  They may end inside a character."""
        found = self._cache.get(token_id)
        if found is None:
            token = self._backend.id_to_token(token_id) if token_id >= 0 else None
            found = self._cache[token_id] = b"" if token is None else self._bytes(token)
        return found

    def first(self, token_id: int) -> bytes:
        """The bytes that a token adds at the very start of a text: metaspace decoders drop its spaces there."""
        if not self._drops_first_spaces:
            return self.piece(token_id)
        token = self._backend.id_to_token(token_id) if token_id >= 0 else None
        return b"" if token is None else token.replace(self._metaspace, "").encode()

    def join(self, ids: list[int]) -> str:
        """The text of `ids`, malformed UTF-8 replaced by U+FFFD, one for each maximal part of a character."""
        data = b"".join((self.piece if place else self.first)(token_id) for place, token_id in enumerate(ids))
        text = data.decode("utf-8", "replace")
        spaces = min(self.strip, len(text) - len(text.lstrip(" ")))
        return text[spaces:]

    def _bytes(self, token: str) -> bytes:
        if self._byte_level:
            if self.word_end and token.endswith(self.word_end):
                return self._level(token.removesuffix(self.word_end)) + b" "
            return self._level(token)
        if self._metaspace:
            return token.replace(self._metaspace, " ").encode()
        if self._prefix:
            return token.removeprefix(self._prefix).encode() if token.startswith(self._prefix) else f" {token}".encode()
        if self._suffix:
            return token.replace(self._suffix, " ").encode()
        for old, new in self._replace:
            token = token.replace(old, new)
        if self.byte_fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                pass
        return token.encode()

    @staticmethod
    def _level(token: str) -> bytes:
        """A token with any character outside the byte alphabet (an added token) stands for itself."""
        try:
            return bytes([_ALPHABET[character] for character in token])
        except KeyError:
            return token.encode()
