"""Drafts from the text itself, against their definition by looking through the whole text."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.generation.speculation.ngram import NGram


def looked_up(tokens: Sequence[int], most: int, longest: int, shortest: int) -> list[int]:
    for length in range(longest, shortest - 1, -1):
        end = tokens[-length:]
        for start in range(len(tokens) - 1, length - 1, -1):
            if len(end) == length and tokens[start - length : start] == end:
                going_on = list(tokens)
                while len(going_on) < len(tokens) + most:
                    going_on.append(going_on[len(going_on) - (len(tokens) - start)])
                return going_on[len(tokens) :]
    return []


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(st.integers(0, 3), max_size=60),
    grown=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), max_size=10),
    shortest=st.integers(1, 3),
    more=st.integers(0, 3),
)
def test_a_proposal_is_what_followed_the_last_time(
    text: list[int], grown: list[tuple[int, int]], shortest: int, more: int
) -> None:
    """Of a sequence that grows in steps, as drafts are right or wrong."""
    index, known = NGram(shortest + more, shortest), 0
    for step, most in grown:
        known = min(len(text), known + step)
        assert index.propose(text[:known], most) == looked_up(text[:known], most, shortest + more, shortest)


@pytest.mark.parametrize("period", [1, 2, 3, 7])
def test_a_text_that_repeats_a_passage_is_foretold_as_far_as_one_asks(period: int) -> None:
    text = [place % period for place in range(200)]
    index = NGram()
    right = [index.propose(text[:known], 16) == text[known : known + 16] for known in range(1, 180)]
    assert right == [known >= period + 2 for known in range(1, 180)]


def test_a_new_text_has_no_drafts() -> None:
    assert NGram().propose([], 4) == [] == NGram().propose([5], 4)
    assert NGram().propose(list(range(500)), 4) == []
    assert NGram(3, 1).propose([1, 2, 1], 0) == []


def test_the_longest_match_decides_and_of_those_the_last() -> None:
    text = [1, 2, 3, 70, 9, 2, 3, 80, 1, 2, 3, 71, 8, 2, 3, 81, 1, 2, 3]
    assert NGram(3, 2).propose(text, 2) == [71, 8]
    assert NGram(2, 2).propose(text, 2) == [81, 1]
    assert NGram(4, 4).propose(text, 2) == []


def test_a_long_text_costs_a_proposal_no_more_than_a_short_one() -> None:
    class Watched(list[int]):
        def __getitem__(self, place):  # type: ignore[no-untyped-def]
            nonlocal touched
            touched += len(range(*place.indices(len(self)))) if isinstance(place, slice) else 1
            return list.__getitem__(self, place)

    touched, source = 0, random.Random(0)
    for length in (100, 20_000):
        text = Watched([7, 8, 9, *(source.randrange(50) for _ in range(length))])
        index = NGram()
        index.propose(text, 8)
        touched = 0
        for token in (7, 8, 9):
            text.append(token)
            assert len(index.propose(text, 8)) in (0, 8)
        assert touched < 80
