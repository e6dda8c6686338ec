"""Token ids to text, one at a time."""

import codecs

from bestiary.generation.tokenizer import Tokenizer


class Detokenizer:
    """The text of one sequence as its tokens come.

    Text is given out as soon as its characters are whole, and never taken back: the results of `push` and of the final
    `flush` join to `tokenizer.decode` of all the ids.  With a tokenizer whose text is not the sum of its pieces
    (`Pieces.local` is False: WordPiece, or clean-up of spaces) all of it comes with `flush`.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._pieces = tokenizer.pieces
        self._local = self._pieces.local and not tokenizer.clean_up
        self._held: list[int] = []
        self.reset()

    def reset(self) -> None:
        """Forget the sequence; the next push begins another."""
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = self._pieces.strip
        self._first = True
        self._held.clear()

    def push(self, token_id: int) -> str:
        """The text that became whole with this token; often empty inside a character."""
        if not self._local:
            self._held.append(token_id)
            return ""
        if self._skip and self._tokenizer.is_special(token_id):
            return ""
        data = self._pieces.first(token_id) if self._first else self._pieces.piece(token_id)
        self._first = False
        return self._without_spaces(self._utf8.decode(data))

    def flush(self) -> str:
        """What is left at the end: one U+FFFD where the sequence ends inside a character."""
        if self._local:
            text = self._without_spaces(self._utf8.decode(b"", True))
        else:
            text = self._tokenizer.decode(self._held, self._skip)
        self.reset()
        return text

    def _without_spaces(self, text: str) -> str:
        if not self._strip or not text:
            return text
        rest = text.lstrip(" ")
        spaces = min(self._strip, len(text) - len(rest))
        self._strip = self._strip - spaces if not rest else 0
        return text[spaces:]
