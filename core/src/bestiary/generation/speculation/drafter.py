"""What guesses the tokens to come, so that one step of the model confirms several.

The model chooses every token itself, with the number that it would have used anyway, and a guess counts only where it
is that very token.  So drafts change how long an answer takes and nothing else: with a seed, not even the draws
(drafter-invariant speculative decoding, Daliri et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from bestiary.generation.engine.choice import Choice
from bestiary.generation.engine.runner import Result
from bestiary.generation.engine.sequence import Plan
from bestiary.generation.speculation.ngram import NGram


class Drafter(Protocol):
    """Called by the engine's loop alone, in this order in every step."""

    @property
    def nbytes(self) -> int:
        """What it holds besides the engine's model: weights, and a cache of its own."""

    def reserve(self, choices: Sequence[Choice]) -> None:
        """Give guesses, or places for them (any token), to the answers that decode, before the step is planned."""

    def draft(self, plan: Plan, choices: Mapping[int, Choice]) -> Plan:
        """Fill the places in that the plan has room for; the plan, without those that were not filled."""

    def observe(self, result: Result, choices: Mapping[int, Choice]) -> None:
        """See what the step made, after its tokens were chosen."""


def room(choice: Choice, most: int) -> int:
    """How many tokens may be guessed for an answer now: none unless it decodes."""
    sequence = choice.sequence
    if sequence.pending != 1 or sequence.computed == 0 or not choice.request.terms.speculate:
        return 0
    return min(most, choice.room - 1)


class NGramDrafter:
    """Guesses that an answer goes on as its own text went on before."""

    nbytes = 0

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def reserve(self, choices: Sequence[Choice]) -> None:
        for choice in choices:
            most = room(choice, self.tokens)
            if most < 1:
                continue
            if not isinstance(choice.draft, NGram):
                choice.draft = NGram()
            guesses = choice.draft.propose(choice.sequence.tokens, most)
            if choice.constraint is not None:
                guesses = guesses[: choice.constraint.accepts(guesses)]
            choice.sequence.guess(guesses)

    def draft(self, plan: Plan, choices: Mapping[int, Choice]) -> Plan:
        return plan

    def observe(self, result: Result, choices: Mapping[int, Choice]) -> None:
        pass
