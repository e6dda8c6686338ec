"""What is kept of the tokens so far, against looking at all of them again."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.generation.history import History, repeated

NO_BREAKERS: frozenset[int] = frozenset()


def longest(tokens: list[int], breakers: frozenset[int], least: int) -> dict[int, int]:
    """DRY's rule, by comparing every earlier place with the end."""
    found: dict[int, int] = {}
    for end in range(1, len(tokens)):
        length = 0
        while length < end and tokens[end - 1 - length] == tokens[-1 - length] and tokens[-1 - length] not in breakers:
            length += 1
        if length >= least:
            found[tokens[end]] = max(length, found.get(tokens[end], 0))
    return found


@settings(max_examples=300, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 3), max_size=120),
    steps=st.lists(st.tuples(st.integers(0, 50), st.lists(st.integers(0, 4), max_size=4)), max_size=12),
    breakers=st.frozensets(st.integers(0, 3), max_size=1),
    least=st.integers(1, 4),
    prompt_length=st.integers(0, 40),
)
def test_a_history_that_follows_in_steps_knows_what_all_tokens_say(
    tokens: list[int],
    steps: list[tuple[int, list[int]]],
    breakers: frozenset[int],
    least: int,
    prompt_length: int,
) -> None:
    """Short steps and long ones, each with guesses that are gone in the next."""
    history, known = History(), min(prompt_length, len(tokens))
    prompt_length = known
    for advance, drafts in steps:
        known = min(len(tokens), known + advance)
        so_far = tokens[:known] + drafts
        distinct, counts = history.counts(so_far, len(drafts), prompt_length)
        made = Counter(so_far[prompt_length:])
        assert dict(zip(distinct.tolist(), counts.tolist(), strict=True)) == {token: made[token] for token in so_far}
        following, lengths = history.repeats(so_far, len(drafts), breakers, least)
        assert dict(zip(following.tolist(), lengths.tolist(), strict=True)) == longest(so_far, breakers, least)


def test_many_distinct_tokens_are_all_counted() -> None:
    history = History()
    for known in (1, 100, 101, 5000):
        tokens, counts = history.counts(list(range(known)), 0, 50)
        np.testing.assert_array_equal(np.sort(tokens), np.arange(known))
        assert counts.sum() == max(0, known - 50)


def test_the_first_look_is_linear_in_the_context() -> None:
    """On one token repeated, where comparing place by place is quadratic."""

    class Counted(int):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return int(self) == other

        __hash__ = int.__hash__

    for length in (1000, 4000):
        Counted.compared = 0
        repeated([Counted(1)] * length, NO_BREAKERS)
        assert Counted.compared <= 3 * length


def test_later_looks_touch_new_tokens_alone() -> None:
    class Watched(list[int]):
        def __getitem__(self, place):  # type: ignore[no-untyped-def]
            places.extend(range(*place.indices(len(self))) if isinstance(place, slice) else [place])
            return list.__getitem__(self, place)

    places: list[int] = []
    history, tokens = History(), Watched([1, 2, 3] * 200)
    history.repeats(tokens, 0, NO_BREAKERS, 2)
    history.counts(tokens, 0, 10)
    places.clear()
    tokens.append(7)
    tokens.append(1)
    history.repeats(tokens, 0, NO_BREAKERS, 2)
    history.counts(tokens, 0, 10)
    assert set(places) == {600, 601}
