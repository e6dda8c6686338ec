"""Penalties against their formulas in plain numpy, and their order."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.errors import OptionError
from bestiary.generation.penalties import _repeated, penalised
from bestiary.generation.sampling import Sampling

VOCABULARY = 12
TOKENS = [3, 4, 5, 3, 4, 5, 3, 3, 11]
LOGITS = np.linspace(-3, 3, VOCABULARY, dtype=np.float32)


def changed(tokens: list[int] = TOKENS, prompt_length: int = 3, **options: Any) -> np.ndarray:
    named = {name: options.pop(name) for name in ("breakers", "ends") if name in options}
    return penalised(torch.tensor(LOGITS), Sampling(**options), tokens, prompt_length, **named).numpy()


def test_nothing_asked_changes_nothing() -> None:
    logits = torch.tensor(LOGITS)
    assert penalised(logits, Sampling(), TOKENS, 3) is logits


def test_frequency_and_presence_count_the_answer_alone() -> None:
    counts = np.bincount(TOKENS[3:], minlength=VOCABULARY)
    expected = LOGITS - 0.5 * counts - 0.25 * (counts > 0)
    np.testing.assert_allclose(changed(frequency_penalty=0.5, presence_penalty=0.25), expected, rtol=1e-6)


def test_repetition_counts_prompt_and_answer_as_in_transformers() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    processor = RepetitionPenaltyLogitsProcessor(1.7)
    expected = processor(torch.tensor([TOKENS]), torch.tensor(LOGITS)[None])[0].numpy()
    np.testing.assert_allclose(changed(repetition_penalty=1.7), expected, rtol=1e-6)


def test_bias_is_added_and_unknown_tokens_of_a_padded_table_are_left() -> None:
    expected = LOGITS.copy()
    expected[[2, 7]] += [5.0, -100.0]
    np.testing.assert_allclose(changed(logit_bias={2: 5.0, 7: -100.0, VOCABULARY + 3: 1.0}), expected)


def test_end_tokens_wait_for_the_least_number_of_tokens() -> None:
    few = changed(min_tokens=7, ends=frozenset([1, 2]))
    assert np.isneginf(few[[1, 2]]).all() and np.isfinite(np.delete(few, [1, 2])).all()
    np.testing.assert_array_equal(changed(min_tokens=6, ends=frozenset([1, 2])), LOGITS)


def test_processors_come_after_the_bias_and_see_all_tokens() -> None:
    seen: list[Any] = []

    def double(logits: torch.Tensor, tokens: Any) -> torch.Tensor:
        seen.append(list(tokens))
        return logits * 2

    expected = LOGITS.copy()
    expected[4] += 1.0
    np.testing.assert_allclose(changed(logit_bias={4: 1.0}, processors=(double,)), expected * 2)
    assert seen == [TOKENS]


def test_the_order_is_dry_penalties_bias() -> None:
    """Each step changes what the next one sees: repetition divides what DRY and presence left."""
    tokens = [1, 2, 9, 1, 2]
    options = {"dry_multiplier": 1.0, "presence_penalty": 0.5, "repetition_penalty": 2.0, "logit_bias": {9: 3.0}}
    expected = LOGITS.astype(np.float64)
    expected[9] -= 1.0  # a repetition of the allowed length costs multiplier * base ** 0
    expected[[1, 2]] -= 0.5
    for token in (1, 2, 9):
        expected[token] = expected[token] / 2 if expected[token] > 0 else expected[token] * 2
    expected[9] += 3.0
    np.testing.assert_allclose(changed(tokens, 3, **options), expected, rtol=1e-6)


def naive_dry(tokens: list[int], multiplier: float, base: float, allowed: int, breakers: set[int]) -> np.ndarray:
    """The rule as its author states it, by comparing every earlier place with the end."""
    expected = LOGITS.astype(np.float64)
    longest: dict[int, int] = {}
    for end in range(1, len(tokens)):
        length = 0
        while length < end and tokens[end - 1 - length] == tokens[-1 - length] and tokens[-1 - length] not in breakers:
            length += 1
        if length >= allowed:
            longest[tokens[end]] = max(length, longest.get(tokens[end], 0))
    for token, length in longest.items():
        expected[token] -= multiplier * base ** min(length - allowed, 60)
    return expected


@settings(max_examples=300, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    allowed=st.integers(1, 4),
    breakers=st.sets(st.integers(0, 3), max_size=1),
)
def test_dry_is_what_its_author_states(tokens: list[int], allowed: int, breakers: set[int]) -> None:
    found = changed(
        tokens, 0, dry_multiplier=0.8, dry_base=1.5, dry_allowed_length=allowed, breakers=frozenset(breakers)
    )
    np.testing.assert_allclose(found, naive_dry(tokens, 0.8, 1.5, allowed, breakers), rtol=1e-5, atol=1e-4)


def test_dry_is_linear_in_the_context() -> None:
    """On one token repeated, where comparing place by place is quadratic."""

    class Counted(int):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return int(self) == other

        __hash__ = int.__hash__

    for length in (1000, 4000):
        Counted.compared = 0
        _repeated([Counted(1)] * length, frozenset())
        assert Counted.compared <= 3 * length


@pytest.mark.parametrize(
    "options",
    [
        {"frequency_penalty": 2.1},
        {"presence_penalty": float("nan")},
        {"repetition_penalty": 0},
        {"repetition_penalty": None},
        {"dry_multiplier": -1},
        {"dry_base": 0.5},
        {"dry_allowed_length": 0},
        {"dry_sequence_breakers": [""]},
        {"dry_sequence_breakers": "abc"},
        {"logit_bias": [1]},
        {"logit_bias": {"a": 1.0}},
        {"logit_bias": {-1: 1.0}},
        {"logit_bias": {1: 101.0}},
        {"logit_bias": dict.fromkeys(range(1025), 1.0)},
        {"min_tokens": -1},
        {"min_tokens": None},
        {"processors": [5]},
    ],
    ids=str,
)
def test_values_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Sampling(**options)
