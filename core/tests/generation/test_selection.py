"""Both ways to find things in rows of logits, against a plain statement by numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bestiary.generation.selection import ByNumpy, ByTorch, Selection, selection_on

WAYS = [ByNumpy(), ByTorch()]


def rows(seed: int, count: int, vocabulary: int) -> torch.Tensor:
    """Logits with many equal values and some of minus infinity."""
    source = np.random.default_rng(seed)
    made = source.integers(-4, 5, (count, vocabulary)).astype(np.float32)
    made[source.random((count, vocabulary)) < 0.2] = -np.inf
    return torch.from_numpy(made)


@pytest.mark.parametrize("by", WAYS, ids=["numpy", "torch"])
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), vocabulary=st.integers(1, 40), data=st.data())
def test_maxima_largest_and_nth(by: Selection, seed: int, count: int, vocabulary: int, data: st.DataObject) -> None:
    logits = rows(seed, count, vocabulary)
    plain = logits.numpy()
    values, tokens = by.maxima(logits)
    np.testing.assert_array_equal(values, plain.max(-1))
    assert tokens.tolist() == [int(np.flatnonzero(row == row.max())[0]) for row in plain]

    most = data.draw(st.integers(1, vocabulary))
    np.testing.assert_array_equal(by.largest(logits, most), -np.sort(-plain, axis=-1)[:, :most])

    wanted = plain[
        np.arange(count), data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=count, max_size=count))
    ]
    places = [
        data.draw(st.integers(0, int((row == value).sum()) - 1)) for row, value in zip(plain, wanted, strict=True)
    ]
    found = by.nth(logits, torch.from_numpy(wanted), torch.tensor(places))
    assert found.tolist() == [
        int(np.flatnonzero(row == value)[place]) for row, value, place in zip(plain, wanted, places, strict=True)
    ]


@pytest.mark.parametrize("by", WAYS, ids=["numpy", "torch"])
def test_a_row_with_a_number_that_is_none_says_so_and_ends_nothing(by: Selection) -> None:
    logits = torch.tensor([[0.0, float("nan"), 1.0], [0.0, 2.0, 1.0]])
    values, tokens = by.maxima(logits)
    assert values[0].isnan() and values[1] == 2.0 and tokens[1] == 1
    assert by.largest(logits, 2)[1].tolist() == [2.0, 1.0]
    for place in (-3, 0, 3):
        assert by.nth(logits, torch.tensor([float("nan"), 1.0]), torch.tensor([place, 0]))[1] == 2


def test_numpy_serves_the_cpu_alone() -> None:
    assert isinstance(selection_on(torch.device("cpu")), ByNumpy)
    assert isinstance(selection_on(torch.device("cuda")), ByTorch)
