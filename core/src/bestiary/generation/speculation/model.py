"""Drafts by a smaller model (Leviathan et al. 2023), and by a head on the model's own states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.building import resident_bytes
from bestiary.errors import BestiaryError, GenerationError
from bestiary.generation.choosing import choose_rows
from bestiary.generation.constraints.state import ConstraintState
from bestiary.generation.engine.choice import Choice
from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.runner import Result, flat
from bestiary.generation.engine.sequence import Plan, Work
from bestiary.generation.speculation.drafter import room
from bestiary.nn import AttentionSpec, Batch, LanguageModel


@dataclass
class _Guess:
    """The guesses of one answer in a step, as far as they are made."""

    choice: Choice
    known: int
    """Tokens before the first guess."""
    state: ConstraintState | None
    made: int = 0

    @classmethod
    def of(cls, choice: Choice) -> _Guess:
        state = choice.constraint.copy() if choice.constraint is not None else None
        return cls(choice, len(choice.sequence.tokens) - choice.sequence.drafts, state)

    @property
    def last(self) -> Work:
        """The work of the guess that was made last."""
        return Work(self.choice.sequence, self.known + self.made - 1, 1)


def _guess(guesses: Sequence[_Guess], logits: torch.Tensor) -> list[tuple[int, _Guess]]:
    """Make the next guess of each by its row of logits [N, V], with the number that the model will choose by.

    Returns those that go on, with the place of each in `guesses`.
    """
    rows, open_ones = [], []
    for place, guess in enumerate(guesses):
        sequence = guess.choice.sequence
        tokens = sequence.tokens[: guess.known + guess.made]
        try:
            rows.append(guess.choice.row(tokens, guess.made, guess.state))
            open_ones.append((place, guess))
        except GenerationError:
            sequence.keep_drafts(guess.made)
    if not rows:
        return []
    going: list[tuple[int, _Guess]] = []
    for (place, guess), token in zip(
        open_ones, choose_rows(logits[[place for place, _ in open_ones]], rows), strict=True
    ):
        sequence = guess.choice.sequence
        if isinstance(token, BestiaryError):
            sequence.keep_drafts(guess.made)
            continue
        sequence.tokens[guess.known + guess.made] = token
        guess.made += 1
        if guess.state is not None:
            guess.state.advance(token)
            if guess.state.is_finished:
                sequence.keep_drafts(guess.made)
        if token in guess.choice.request.ends:
            sequence.keep_drafts(guess.made)
        if guess.made < sequence.drafts:
            going.append((place, guess))
    return going


class ModelDrafter:
    """A model with the same vocabulary, over a cache of its own that shares the block tables of the engine's."""

    def __init__(self, model: LanguageModel, tokens: int, cache: PagedCache, vocab_size: int) -> None:
        """`cache` is `PagedCache.beside` the engine's; `vocab_size` that of the engine's model."""
        self.model, self.tokens, self.cache, self.vocab_size = model, tokens, cache, vocab_size

    @property
    def nbytes(self) -> int:
        weights = resident_bytes(self.model) if isinstance(self.model, nn.Module) else 0
        return weights + self.cache.nbytes

    def reserve(self, choices: Sequence[Choice]) -> None:
        for choice in choices:
            choice.sequence.guess([0] * max(0, room(choice, self.tokens)))

    def draft(self, plan: Plan, choices: Mapping[int, Choice]) -> Plan:
        self.cache.copy(plan.copies)
        works: list[Work] = []
        guesses: list[_Guess] = []
        ends: list[int] = []
        rows = 0
        for work in plan.work:
            sequence, choice = work.sequence, choices[id(work.sequence)]
            if not choice.request.terms.speculate:
                continue
            end = min(work.end, len(sequence.tokens) - sequence.drafts)
            # What the drafting model has not seen yet: also the guess that was right and last.
            works.append(Work(sequence, sequence.shadow, end - sequence.shadow))
            rows += works[-1].count
            sequence.shadow = end
            if sequence.drafts:
                guesses.append(_Guess.of(choice))
                ends.append(rows - 1)
        if works:
            going = _guess(guesses, self._logits(works, ends))
            while going:
                logits = self._logits([guess.last for _, guess in going], range(len(going)))
                for _, guess in going:
                    guess.choice.sequence.shadow = guess.known + guess.made
                going = _guess([guess for _, guess in going], logits)
        return plan.trimmed()

    def observe(self, result: Result, choices: Mapping[int, Choice]) -> None:
        pass

    @torch.inference_mode()
    def _logits(self, works: Sequence[Work], rows: Sequence[int]) -> torch.Tensor:
        tokens, batch = flat(works, self.cache)
        # Models of one family pad the same vocabulary to different numbers of rows.
        hidden = self.model.hidden(tokens.clamp(max=self.model.vocab_size - 1), batch)
        logits = self.model.head(hidden[list(rows)]).float()[:, : self.vocab_size]
        return F.pad(logits, (0, self.vocab_size - logits.shape[1]), value=torch.finfo(torch.float32).min)


class DraftHead(Protocol):
    """A head that foretells the token after the next (multi-token prediction: DeepSeek-V3, arXiv 2412.19437)."""

    @property
    def specs(self) -> Sequence[AttentionSpec]:
        """What to make its layer states from."""

    def hidden(self, tokens: torch.Tensor, states: torch.Tensor, batch: Batch) -> torch.Tensor:
        """tokens [T] with the states [T, D], before the model's head, of the tokens before them -> states [T, D].

        Chained, it is given its own states in place of the model's.
        """

    def head(self, states: torch.Tensor) -> torch.Tensor:
        """states [N, D] -> logits [N, V] of the tokens that follow."""


class HeadDrafter:
    """Drafts by a head that sees the model's own states, over a cache beside the engine's.

    The pair (state at p, token at p + 1) lies in the slot of p.
    """

    def __init__(self, head: DraftHead, tokens: int, cache: PagedCache) -> None:
        self.head, self.tokens, self.cache = head, tokens, cache

    @property
    def nbytes(self) -> int:
        return self.cache.nbytes  # the head is part of the model

    def reserve(self, choices: Sequence[Choice]) -> None:
        for choice in choices:
            sequence = choice.sequence
            if isinstance(choice.draft, torch.Tensor) and sequence.shadow == len(sequence.tokens) - 1:
                sequence.guess([0] * max(0, room(choice, self.tokens)))

    @torch.inference_mode()
    def draft(self, plan: Plan, choices: Mapping[int, Choice]) -> Plan:
        self.cache.copy(plan.copies)
        drafted = [choices[id(work.sequence)] for work in plan.work if work.sequence.drafts]
        guesses = [_Guess.of(choice) for choice in drafted]
        states = torch.stack([choice.draft for choice in drafted]) if drafted else torch.empty(0)  # type: ignore[misc]
        going = _guess(guesses, self.head.head(states).float()) if drafted else []
        while going:
            states = states[[place for place, _ in going]]
            # The guess stands for the token after the pair's place, which is the one before its own.
            works = [Work(guess.choice.sequence, guess.known + guess.made - 2, 1) for _, guess in going]
            _, batch = flat(works, self.cache)
            tokens = torch.tensor([work.sequence.tokens[work.start + 1] for work in works], device=self.cache.device)
            states = self.head.hidden(tokens, states, batch)
            going = _guess([guess for _, guess in going], self.head.head(states).float())
        return plan.trimmed()

    @torch.inference_mode()
    def observe(self, result: Result, choices: Mapping[int, Choice]) -> None:
        works: list[Work] = []
        rows: list[int] = []
        first = 0
        for work in result.plan.work:
            sequence = work.sequence
            start, end = max(work.start, sequence.shadow), min(work.end, len(sequence.tokens) - 1)
            choice = choices.get(id(sequence))
            if choice is not None and choice.request.terms.speculate and start < end:
                works.append(Work(sequence, start, end - start))
                rows += range(first + start - work.start, first + end - work.start)
            first += work.count
        if not works:
            return
        _, batch = flat(works, self.cache)
        tokens = [token for work in works for token in work.sequence.tokens[work.start + 1 : work.end + 1]]
        states = self.head.hidden(torch.tensor(tokens, device=self.cache.device), result.hidden[rows], batch)
        last = -1
        for work in works:
            last += work.count
            work.sequence.shadow = work.end
            choices[id(work.sequence)].draft = states[last]
