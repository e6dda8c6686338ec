"""Random numbers by seed, place and token: their distribution, and that they are what they always were."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bestiary.generation.randomness import UNIT, _word, derived, drawn, drawn_below, key

# By hashlib.blake2b, which follows RFC 7693.
KEYS = [1809214481856441338, 7207407585332368763, 5824517008922644979]
ANSWERS = [5, 4374171243915026679, -3721896717121105001]
# The first words of SplitMix64 started with 1234567 (rosettacode.org, "Pseudo-random numbers/Splitmix64").
WORDS = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]

SEEDS = st.integers(-(2**63), 2**63 - 1)
TOKENS = 200_000


def plain_word(start: int, place: int) -> int:
    """SplitMix64 as its authors write it, in Python's integers."""
    word = (start + (place + 1) * 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def numbers(keys: list[int], tokens: np.ndarray) -> np.ndarray:
    return (drawn(np.array(keys)[:, None], tokens[None]) + 0.5) * UNIT


def critical(freedom: int) -> float:
    """99.99 % of the chi-square distribution (Wilson and Hilferty 1931)."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + 3.719 * part**0.5) ** 3)


def assert_even(counts: np.ndarray) -> None:
    expected = counts.sum() / counts.size
    assert ((counts - expected) ** 2 / expected).sum() < critical(counts.size - 1)


# Keys and seeds


@given(SEEDS, st.integers(0, 2**40))
def test_a_key_is_64_bits_and_the_same_again(seed: int, place: int) -> None:
    made = key(seed, place)
    assert made == key(seed, place)
    assert torch.tensor([made], dtype=torch.int64).tolist() == [made]


def test_keys_and_seeds_never_change_between_versions() -> None:
    """A seed in somebody's notes must go on giving the same text."""
    assert [key(0, 0), key(-1, 7), key(2**63 - 1, 10**6)] == KEYS
    assert [derived(5, index) for index in range(3)] == ANSWERS


@given(SEEDS)
def test_each_answer_to_one_prompt_has_a_seed_of_its_own(seed: int) -> None:
    seeds = [derived(seed, index) for index in range(128)]
    assert seeds[0] == seed and len(set(seeds)) == 128
    assert all(-(2**63) <= made < 2**63 for made in seeds)
    assert len({key(made, place) for made in seeds for place in range(4)}) == 512


# Numbers of tokens


def test_words_are_those_of_splitmix64() -> None:
    assert [word % 2**64 for word in _word(torch.tensor([1234567]), torch.arange(5)).tolist()] == WORDS
    assert [plain_word(1234567, place) for place in range(5)] == WORDS


@given(st.lists(SEEDS, min_size=1, max_size=4), st.lists(st.integers(0, 2**31), min_size=1, max_size=20))
def test_a_token_has_16_bits_of_a_shared_word_and_36_of_its_own(keys: list[int], tokens: list[int]) -> None:
    expected = [
        [
            (plain_word(start, -1 - token // 4) >> 16 * (token % 4)) % 2**16 << 36 | plain_word(start, token) >> 28
            for token in tokens
        ]
        for start in keys
    ]
    by_torch = drawn(torch.tensor(keys)[:, None], torch.tensor(tokens)[None])
    by_numpy = drawn(np.array(keys, np.int64)[:, None], np.array(tokens, np.int64)[None])
    assert by_torch.tolist() == by_numpy.tolist() == expected


@pytest.mark.parametrize("vocabulary", [1, 2, 5, 8, 1003, TOKENS])
def test_low_numbers_are_found_without_a_look_at_all(vocabulary: int) -> None:
    keys = [key(3, place) for place in range(5)]
    every = numbers(keys, np.arange(vocabulary))
    for limit in (0.0, 1e-6, 1e-4, 0.01, 0.5, 0.99999, 1.0, 40.0, float("inf"), float("nan")):
        for found, due in zip(drawn_below(keys, [limit] * 5, vocabulary), every, strict=True):
            assert set(np.flatnonzero(due < limit)) <= set(found.tolist())
            assert (np.diff(found) > 0).all() and (due[found] < limit + 2**-16).all()
    first, second = drawn_below(keys[:2], [0.0, 1.0], vocabulary)
    assert len(first) == 0 and len(second) == vocabulary


def test_numbers_lie_strictly_between_0_and_1() -> None:
    """As their logarithms are taken."""
    for bits in (0, 2**52 - 1):
        number = (torch.tensor([bits]).double() + 0.5) * UNIT
        assert 0.0 < float(number) < 1.0 and (np.array([bits]) + 0.5) * UNIT == number.numpy()


def test_numbers_are_spread_evenly() -> None:
    """Along the tokens of a key, and along the places and the seeds of a token; in their upper bits and the others."""
    tokens = numbers([key(1, 1)], np.arange(TOKENS))[0]
    places = numbers([key(1, place) for place in range(20_000)], np.array([7]))[:, 0]
    seeds = numbers([key(seed, 1) for seed in range(20_000)], np.array([7]))[:, 0]
    for found in (tokens, places, seeds):
        for scale in (1, 2**16, 2**32):
            assert_even(np.histogram(found * scale % 1, 100, (0.0, 1.0))[0])
    for low in (1e-2, 1e-3, 1e-4):  # where races are won
        assert abs((tokens < low).sum() - TOKENS * low) < 4 * (TOKENS * low) ** 0.5


def test_numbers_of_neighbours_know_nothing_of_each_other() -> None:
    """Of tokens 1 to 9 apart, of one place and the next, of one seed and the next, and of keys that differ by a bit."""
    starts = [key(5, place) for place in range(9)]
    every = numbers(starts, np.arange(TOKENS))
    pairs = [(every[0][:-step], every[0][step:]) for step in range(1, 10)]
    pairs += [*pairwise(every), *pairwise(numbers([key(seed, 2) for seed in range(4)], np.arange(TOKENS)))]
    pairs += list(pairwise(numbers([8, 9, 11, 3, 3 - 2**63], np.arange(TOKENS))))
    for one, other in pairs:
        assert_even(np.histogram2d(one, other, 16, ((0.0, 1.0), (0.0, 1.0)))[0])
    # Three tokens of one shared word, and the least of four: whose is low is a matter of one key alone.
    fours = numbers([key(6, place) for place in range(40)], np.arange(8000)).reshape(-1, 4)
    assert_even(np.histogramdd(fours[:, :3], 6, ((0.0, 1.0),) * 3)[0])
    assert_even(np.bincount(fours.argmin(-1), minlength=4))


def test_numbers_of_one_key_have_the_extremes_that_chance_gives() -> None:
    """The least of 1,000 numbers is below x with the probability 1 - (1 - x) ** 1000."""
    least = numbers([key(9, place) for place in range(5000)], np.arange(1000)).min(-1)
    assert_even(np.histogram(1 - (1 - least) ** 1000, 50, (0.0, 1.0))[0])
