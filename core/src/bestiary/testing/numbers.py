"""A tokenizer whose tokens mean nothing, for engines over random weights."""

from bestiary.generation.tokenizer import Tokenizer


class _Pieces:
    local, strip = True, 0

    def piece(self, token: int) -> bytes:
        return b"%d " % token

    first = piece


class Numbers(Tokenizer):
    """As much of a tokenizer as an engine asks for: each token's text is its number."""

    def __init__(self) -> None:
        self.pieces, self.clean_up = _Pieces(), False  # type: ignore[assignment]  # of the class, what is asked for

    def is_special(self, token_id: int) -> bool:
        return False
