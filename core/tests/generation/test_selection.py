"""Both ways to find things in rows of logits, against a plain statement by numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bestiary.generation.randomness import UNIT, drawn, key
from bestiary.generation.selection import ByNumpy, ByTorch, Selection, selection_on

WAYS = pytest.mark.parametrize("by", [ByNumpy(), ByTorch()], ids=["numpy", "torch"])
NAN = float("nan")


def rows(seed: int, count: int, vocabulary: int) -> torch.Tensor:
    """Logits with many equal values, zeros of both signs, and some of minus infinity."""
    source = np.random.default_rng(seed)
    made = source.integers(-4, 5, (count, vocabulary)).astype(np.float32)
    made[source.random((count, vocabulary)) < 0.2] = -np.inf
    made[source.random((count, vocabulary)) < 0.1] = -0.0
    return torch.from_numpy(made)


def assert_first(by: Selection, logits: torch.Tensor, count: int) -> None:
    values, tokens = by.first(logits, count)
    order = np.argsort(-logits.numpy(), axis=-1, kind="stable")[:, :count]
    np.testing.assert_array_equal(tokens, order)
    np.testing.assert_array_equal(values, np.take_along_axis(logits.numpy(), order, -1))


@WAYS
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), vocabulary=st.integers(1, 60), data=st.data())
def test_maxima_and_the_first(by: Selection, seed: int, count: int, vocabulary: int, data: st.DataObject) -> None:
    logits = rows(seed, count, vocabulary)
    plain = logits.numpy()
    values, tokens = by.maxima(logits)
    np.testing.assert_array_equal(values, plain.max(-1))
    assert tokens.tolist() == [int(np.flatnonzero(row == row.max())[0]) for row in plain]
    assert_first(by, logits, data.draw(st.integers(1, vocabulary)))


@WAYS
@pytest.mark.parametrize("count", [1, 20, 1024, 16_384])
def test_the_first_of_a_large_vocabulary(by: Selection, count: int) -> None:
    """Among them rows in which every 16th token says nothing, or the wrong thing, of the others."""
    logits = torch.randn(10, 70_001, generator=torch.Generator().manual_seed(count)).mul(3)
    logits[1] = logits[1].bfloat16()
    logits[2] = 0.0
    logits[3, 5:] = -torch.inf
    logits[4, ::2] = -torch.inf
    logits[5, ::16] = -torch.inf
    logits[6, ::16] += 100.0
    logits[7, :-7] = -torch.inf
    logits[8, :3000] = 50.0
    logits[9, ::16] = 3e38
    assert_first(by, logits, count)


@WAYS
@pytest.mark.parametrize("count", [2, 100])
def test_a_row_with_a_number_that_is_none_says_so_and_ends_nothing(by: Selection, count: int) -> None:
    logits = torch.arange(5 * 1000.0).view(5, 1000)
    logits[0, 3] = NAN
    logits[1, ::16] = NAN
    logits[2] = NAN
    logits[3, 1:] = NAN
    values, tokens = by.maxima(logits)
    assert values[:4].isnan().all() and values[4] == 4999.0 and tokens[4] == 999
    found, tokens = by.first(logits, count)
    assert tokens[4].tolist() == list(range(999, 999 - count, -1))
    assert ((tokens >= 0) & (tokens < 1000)).all()
    scores = by.scores(found, torch.zeros(5, 1, dtype=torch.int64), tokens)
    assert scores[4].isfinite().all()
    assert by.below([1, 2], torch.tensor([NAN, 0.5]), 1000).shape[0] == 2


@WAYS
def test_scores_are_those_of_the_race(by: Selection) -> None:
    keys, tokens = [key(0, place) for place in range(3)], [5, 0, 90_000]
    scaled = torch.tensor([[0.0, -3.5, -80.0], [-torch.inf, 0.0, -1e-3], [0.0, -1e30, -0.0]])
    found = by.scores(scaled, torch.tensor(keys)[:, None], torch.tensor([tokens] * 3))
    assert found.dtype == torch.float64
    for own, values, row in zip(keys, scaled.tolist(), found.tolist(), strict=True):
        for value, token, score in zip(values, tokens, row, strict=True):
            number = (drawn(torch.tensor(own), torch.tensor(token)).item() + 0.5) * UNIT
            assert score == pytest.approx(value - math.log(-math.log(1 - number)), abs=1e-12)


@WAYS
def test_tokens_below_a_limit_are_all_found(by: Selection) -> None:
    keys, limits = [key(2, place) for place in range(4)], [0.0, 1e-4, 0.03, 5.0]
    found = by.below(keys, torch.tensor(limits, dtype=torch.float64), 30_000)
    for own, limit, tokens in zip(keys, limits, found.tolist(), strict=True):
        numbers = (drawn(np.array([own]), np.arange(30_000)) + 0.5) * UNIT
        assert set(np.flatnonzero(numbers < limit)) <= set(tokens) <= set(range(30_000))


@WAYS
def test_exp_is_the_same_at_every_place_of_a_vector(by: Selection) -> None:
    values = -torch.rand(5000, generator=torch.Generator().manual_seed(0)) * 30
    expected = by.exp(values)
    np.testing.assert_allclose(expected, np.exp(values.numpy().astype(np.float64)), rtol=3e-7)
    for start in range(35):
        for length in (1, 2, 7, 8, 15, 16, 33, 100, 4099):
            assert torch.equal(by.exp(values[start : start + length]), expected[start : start + length])
    assert by.exp(torch.tensor([-torch.inf, 0.0])).tolist() == [0.0, 1.0]


def test_numpy_serves_the_cpu_alone() -> None:
    assert isinstance(selection_on(torch.device("cpu")), ByNumpy)
    assert isinstance(selection_on(torch.device("cuda")), ByTorch)
