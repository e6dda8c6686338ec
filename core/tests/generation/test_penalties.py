"""Penalties against their formulas in plain numpy, and their order."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.errors import BestiaryError, GenerationError, OptionError
from bestiary.generation.choosing import Row
from bestiary.generation.constraints.masks import packed
from bestiary.generation.history import History
from bestiary.generation.penalties import changes, penalise
from bestiary.generation.sampling import Sampling

VOCABULARY = 12
TOKENS = [3, 4, 5, 3, 4, 5, 3, 3, 11]
LOGITS = np.linspace(-3, 3, VOCABULARY, dtype=np.float32)
NONE: frozenset[int] = frozenset()


def row(tokens: list[int] = TOKENS, prompt_length: int = 3, **options: Any) -> Row:
    named = {name: options.pop(name) for name in ("mask", "drafts", "history") if name in options}
    breakers, ends = options.pop("breakers", NONE), options.pop("ends", NONE)
    return Row(Sampling(**options), tokens, prompt_length, 0, breakers, ends, **named)


def changed(*arguments: Any, **options: Any) -> np.ndarray:
    logits = torch.tensor(LOGITS)[None]
    assert penalise(logits, [row(*arguments, **options)]) == {}
    return logits[0].numpy()


def test_what_asks_for_nothing_changes_nothing() -> None:
    for options in (
        {},
        {"temperature": 2.0, "top_p": 0.5},
        {"min_tokens": 6, "ends": frozenset([1])},
        {"min_tokens": 9},
    ):
        assert not changes(row(**options)), options
        np.testing.assert_array_equal(changed(**options), LOGITS)


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


def test_a_long_repetition_costs_no_more_than_a_number_can_hold() -> None:
    found = changed([1] * 500, 0, dry_multiplier=100.0, dry_base=10.0)
    assert found[1] < -1e38 and not np.isnan(found).any()
    np.testing.assert_array_equal(np.delete(found, 1), np.delete(LOGITS, 1))


def test_a_mask_forbids_all_that_it_does_not_allow() -> None:
    allowed = np.arange(VOCABULARY) % 3 == 1
    found = changed(mask=packed(allowed))
    np.testing.assert_array_equal(found, np.where(allowed, LOGITS, -np.inf))
    short = changed(mask=packed(np.ones(0, bool)))  # a model may have more rows than the mask has bits
    assert np.isneginf(short).all()


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "repetition_penalty": st.floats(0.1, 3),
        "dry_multiplier": st.floats(0, 2),
        "logit_bias": st.dictionaries(st.integers(0, VOCABULARY), st.floats(-100, 100), max_size=3),
        "min_tokens": st.integers(0, 12),
        "ends": st.frozensets(st.sampled_from([0, 5, VOCABULARY + 5]), min_size=1),
        "mask": st.integers(1, 2**VOCABULARY - 1).map(lambda bits: np.array([bits], np.int32)),
        "processors": st.just((lambda logits, tokens: logits * 2,)),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(OPTIONS, min_size=1, max_size=6), st.integers(0, 3))
def test_rows_are_changed_together_as_each_alone(many: list[dict[str, Any]], drafts: int) -> None:
    """And with a history as without one, whatever part of the tokens are guesses."""
    source = np.random.default_rng(len(many))
    logits = torch.from_numpy(source.normal(size=(len(many), VOCABULARY)).astype(np.float32))
    rows = [row(**options) for options in many]
    alone = torch.cat([logits[place : place + 1].clone() for place in range(len(rows))])
    for place, single in enumerate(rows):
        assert penalise(alone[place : place + 1], [single]) == {}
    histories = [History() for _ in rows]
    for count in (0, drafts):
        followed = [
            row(drafts=count, history=history, **options) for options, history in zip(many, histories, strict=True)
        ]
        together = logits.clone()
        assert penalise(together, followed) == {}
        assert torch.equal(together, alone)
    for place, single in enumerate(rows):
        assert changes(single) or torch.equal(alone[place], logits[place])


# A request's own functions


def broken(logits: torch.Tensor, tokens: Any) -> torch.Tensor:
    raise ValueError("no such word")


def refusing(logits: torch.Tensor, tokens: Any) -> torch.Tensor:
    raise OptionError("It has its own words.")


def short(logits: torch.Tensor, tokens: Any) -> torch.Tensor:
    return logits[:3]


def empty(logits: torch.Tensor, tokens: Any) -> None:
    return None


@pytest.mark.parametrize(
    "processor, kind, told",
    [
        (broken, GenerationError, "no such word"),
        (refusing, OptionError, "It has its own words"),
        (short, GenerationError, r"torch.Size\(\[3\]\)"),
        (empty, GenerationError, "returned None"),
    ],
)
def test_a_processor_that_fails_fails_its_own_row(processor: Any, kind: type[BestiaryError], told: str) -> None:
    logits = torch.tensor(LOGITS).repeat(3, 1)
    errors = penalise(logits, [row(presence_penalty=1.0), row(processors=(processor,)), row(presence_penalty=1.0)])
    assert list(errors) == [1]
    with pytest.raises(kind, match=told):
        raise errors[1]
    assert torch.equal(logits[0], logits[2])
    np.testing.assert_array_equal(logits[0], changed(presence_penalty=1.0))


def test_a_processor_may_write_into_what_it_is_given_and_answer_in_another_type() -> None:
    def write(logits: torch.Tensor, tokens: Any) -> torch.Tensor:
        logits[3] = 50.0
        return logits.double()

    expected = LOGITS.copy()
    expected[3] = 50.0
    np.testing.assert_array_equal(changed(processors=(write,)), expected)


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
