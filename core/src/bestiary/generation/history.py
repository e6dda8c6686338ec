"""What penalties need to know of the tokens so far, kept from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Integers = np.ndarray[Any, np.dtype[np.int64]]


class History:
    """Of one sequence; not for two threads at once.

    Every method is told all tokens so far, of which the last `drafts` are guesses and may be others the next time.  The
    tokens before them must never change, and so only those that are new are looked at.
    """

    def __init__(self) -> None:
        self._tally, self._repeats = _Tally(), _Repeats()

    def counts(self, tokens: Sequence[int], drafts: int, prompt_length: int) -> tuple[Integers, Integers]:
        """The distinct tokens, and how often each comes after the prompt.  Not to be written to."""
        known = self._tally.follow(tokens, len(tokens) - drafts, prompt_length)
        return self._tally.with_drafts(tokens[known:])

    def repeats(
        self, tokens: Sequence[int], drafts: int, breakers: frozenset[int], least: int
    ) -> tuple[Integers, Integers]:
        """The tokens that would make a repetition longer, and the length of the longest that each would.

        A token followed an earlier copy of the last n tokens, for the largest such n of at least `least`; no breaker is
        among the n.
        """
        known = self._repeats.follow(tokens, len(tokens) - drafts, breakers)
        return self._repeats.longest(tokens[known:], breakers, least)


class _Tally:
    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._tokens, self._counts = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self._known = 0

    def follow(self, tokens: Sequence[int], known: int, prompt_length: int) -> int:
        for place in range(self._known, known):
            token = tokens[place]
            slot = self._slots.setdefault(token, len(self._slots))
            if slot == len(self._tokens):
                self._tokens, self._counts = _doubled(self._tokens), _doubled(self._counts)
            self._tokens[slot] = token
            self._counts[slot] += place >= prompt_length
        self._known = max(self._known, known)
        return self._known

    def with_drafts(self, drafts: Sequence[int]) -> tuple[Integers, Integers]:
        used = len(self._slots)
        tokens, counts = self._tokens[:used], self._counts[:used]
        if drafts:
            fresh = [token for token in dict.fromkeys(drafts) if token not in self._slots]
            tokens, counts = np.append(tokens, np.array(fresh, np.int64)), np.append(counts, np.zeros(len(fresh), int))
            slots = {token: used + place for place, token in enumerate(fresh)}
            for token in drafts:
                counts[slots[token] if token in slots else self._slots[token]] += 1
        return tokens, counts


class _Repeats:
    """For each distance, how many of the last tokens stand so far back too.

    A new token adds one where it stands at that distance, and ends the others: one pass of numpy, where the Z function
    is a loop of Python.
    """

    def __init__(self) -> None:
        self._tokens, self._lengths = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self._known = 0

    def follow(self, tokens: Sequence[int], known: int, breakers: frozenset[int]) -> int:
        if known <= self._known:
            return self._known
        while len(self._tokens) < known:
            self._tokens, self._lengths = _doubled(self._tokens), _doubled(self._lengths)
        self._tokens[self._known : known] = tokens[self._known : known]
        if known - self._known > 32:
            self._lengths[: known - 1] = repeated(tokens[:known], breakers)[1:]
        else:
            for place in range(self._known, known):
                _append(self._tokens, self._lengths, place, breakers)
        self._known = known
        return known

    def longest(self, drafts: Sequence[int], breakers: frozenset[int], least: int) -> tuple[Integers, Integers]:
        count = self._known
        tokens, lengths = self._tokens, self._lengths
        if drafts:
            tokens = np.append(tokens[:count], np.array(drafts, np.int64))
            lengths = np.append(lengths[:count], np.zeros(len(drafts), np.int64))
            for place in range(count, len(tokens)):
                _append(tokens, lengths, place, breakers)
            count = len(tokens)
        found = np.flatnonzero(lengths[: max(0, count - 1)] >= least)
        following, places = np.unique(tokens[count - 1 - found], return_inverse=True)
        best = np.zeros(len(following), np.int64)
        np.maximum.at(best, places, lengths[found])
        return following, best


def _append(tokens: Integers, lengths: Integers, place: int, breakers: frozenset[int]) -> None:
    """`tokens[place]` is new: lengths [distance - 1] of the tokens up to it, from those up to the one before."""
    if int(tokens[place]) in breakers:
        lengths[:place] = 0
        return
    lengths[:place] += 1
    lengths[:place] *= tokens[:place][::-1] == tokens[place]


def repeated(tokens: Sequence[int], breakers: frozenset[int]) -> list[int]:
    """By the number of tokens left off at the end (0 has none): how many of the last tokens stand there too.

    The Z function of the reversed tokens (Gusfield 1997), up to the last breaker: linear in the length.
    """
    back = list(reversed(tokens))
    limit = next((place for place, token in enumerate(back) if token in breakers), len(back))
    lengths = [0] * len(back)
    left = right = 0
    for place in range(1, len(back)):
        length = min(right - place, lengths[place - left]) if place < right else 0
        while length < limit and place + length < len(back) and back[length] == back[place + length]:
            length += 1
        lengths[place] = length
        if place + length > right:
            left, right = place, place + length
    return lengths


def _doubled(values: Integers) -> Integers:
    return np.append(values, np.zeros(len(values), np.int64))
