"""Prompts of exact lengths, as questions and as the tokens that a chat template makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from shapes import Shape
from tokenizers import Tokenizer
from vocabulary import texts


class Prompt(TypedDict):
    text: str
    """The question; the template is what mistral.rs puts around it."""
    tokens: list[int]
    """All of them, those of the template too."""


class Prompts:
    """Pieces of one long text, one after the other, so that no two have more than the template in common."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        """`folder` has a tokenizer.json."""
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._before, self._after = (self._encode(text) for text in shape.around)
        self._around = shape.around
        self._tokens = self._encode("".join(texts(1 << 20)))
        self._at = 0

    def take(self, length: int) -> Prompt:
        """The next prompt of `length` tokens."""
        most = length - len(self._before) - len(self._after)
        if most < 1:
            raise ValueError(f"A prompt of {length} tokens has no room for a text.")
        while True:
            inner = self._tokens[self._at : self._at + most]
            if len(inner) < most:
                raise ValueError("There is no text left for another prompt.")
            text = self._tokenizer.decode(inner)
            tokens = self._encode(self._around[0] + text + self._around[1])
            # Templates of peers may trim white space, and a text may be cut where its tokens are not.
            if text == text.strip() and tokens == [*self._before, *inner, *self._after]:
                self._at += most
                return {"text": text, "tokens": tokens}
            self._at += 1

    def _encode(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return found
