"""Random numbers by seed and place: their distribution, and that they are what they always were."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bestiary.generation.randomness import derived, uniform

# By hashlib.blake2b, which follows RFC 7693.
NUMBERS = [0.518949652863688, 0.4279210996253412, 0.8865851888666813]
ANSWERS = [5, 4374171243915026679, -3721896717121105001]

SEEDS = st.integers(-(2**63), 2**63 - 1)


@given(SEEDS, st.integers(0, 2**40))
def test_a_number_is_in_the_unit_interval_and_the_same_again(seed: int, place: int) -> None:
    number = uniform(seed, place)
    assert 0.0 <= number < 1.0
    assert number == uniform(seed, place)
    assert number * 2**53 == int(number * 2**53)


def test_numbers_never_change_between_versions() -> None:
    """A seed in somebody's notes must go on giving the same text."""
    assert [uniform(0, 0), uniform(-1, 7), uniform(2**63 - 1, 10**6)] == NUMBERS
    assert [derived(5, index) for index in range(3)] == ANSWERS


def test_numbers_are_spread_evenly_along_places_and_along_seeds() -> None:
    for numbers in ([uniform(3, place) for place in range(20_000)], [uniform(seed, 3) for seed in range(20_000)]):
        counts = np.histogram(numbers, 20, (0.0, 1.0))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 52.4  # 99.99 % of chi-square with 19 degrees of freedom
        neighbours = np.corrcoef(numbers[:-1], numbers[1:])[0, 1]
        assert abs(neighbours) < 4 / 20_000**0.5  # four standard deviations


@given(SEEDS)
def test_each_answer_to_one_prompt_has_a_seed_of_its_own(seed: int) -> None:
    seeds = [derived(seed, index) for index in range(128)]
    assert seeds[0] == seed and len(set(seeds)) == 128
    assert all(-(2**63) <= made < 2**63 for made in seeds)
    assert len({uniform(made, place) for made in seeds for place in range(4)}) == 512
