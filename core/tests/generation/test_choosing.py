"""Choosing for all rows of a step at once: a row gives what it gives alone, and fails alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)

from bestiary.errors import BestiaryError, GenerationError
from bestiary.generation.choosing import Row, _chosen, choose_rows, logprobs_of
from bestiary.generation.constraints.masks import packed
from bestiary.generation.history import History
from bestiary.generation.randomness import UNIT, drawn, key
from bestiary.generation.sampling import Sampling
from bestiary.generation.selection import ByTorch

NONE: frozenset[int] = frozenset()
NAN, INFINITE = float("nan"), float("inf")


def row(given: int = 0, tokens: Any = (1, 2, 3, 1, 2), mask: Any = None, **options: Any) -> Row:
    return Row(Sampling(**options), tokens, 2, given, NONE, frozenset([0]), mask)


def logits_of(seed: int, rows: int, vocabulary: int, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


def plain(outcomes: list[int | BestiaryError]) -> list[int | str]:
    return [outcome if isinstance(outcome, int) else str(outcome) for outcome in outcomes]


# Alone and among others

FAILING = (lambda logits, tokens: logits[:2],)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 5.0]),
        "top_k": st.sampled_from([1, 3, 40, 2000]),
        "top_p": st.sampled_from([0.0, 0.4, 0.9, 0.99]),
        "min_p": st.sampled_from([0.05, 0.5]),
        "frequency_penalty": st.floats(-2, 2),
        "repetition_penalty": st.sampled_from([0.5, 1.3]),
        "dry_multiplier": st.just(1.0),
        "logit_bias": st.dictionaries(st.integers(0, 40), st.floats(-100, 100), max_size=3),
        "min_tokens": st.integers(0, 5),
        "mask": st.sampled_from([1, 0b1010, 0]).map(lambda bits: np.full(150, bits, np.int32)),
        "processors": st.sampled_from([(), FAILING, (lambda logits, tokens: logits * NAN,)]),
        "given": st.integers(-(2**63), 2**63 - 1),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(OPTIONS, min_size=1, max_size=12), st.integers(0, 10**6))
def test_a_row_gives_the_same_alone_and_among_any_others(
    data: st.DataObject, options: list[dict[str, Any]], seed: int
) -> None:
    """The same token, or the same error; whatever the others ask, and in whatever order they come."""
    logits = logits_of(seed, len(options), 4801)
    for place in data.draw(st.sets(st.integers(0, len(options) - 1), max_size=2)):
        logits[place, 5] = data.draw(st.sampled_from([NAN, INFINITE, -INFINITE]))
    rows = [row(**chosen) for chosen in options]
    alone = [choose_rows(logits[place : place + 1], [single])[0] for place, single in enumerate(rows)]
    assert plain(choose_rows(logits, rows)) == plain(alone)
    assert plain(_chosen(logits, rows, ByTorch())) == plain(alone)
    order = data.draw(st.permutations(range(len(rows))))[: data.draw(st.integers(1, len(rows)))]
    assert plain(choose_rows(logits[order], [rows[place] for place in order])) == plain(
        [alone[place] for place in order]
    )


@pytest.mark.parametrize("options", [{}, {"top_k": 50}, {"temperature": 3.0}, {"repetition_penalty": 1.2}])
def test_not_one_bit_of_a_row_depends_on_its_neighbours(options: dict[str, Any]) -> None:
    """Each top_p is the last or the first that keeps a token, where the least change of any sum would show."""
    options = {"temperature": 1.0, **options}
    logits = logits_of(9, 1, 30_011)
    rows = []
    for own in (key(1, place) for place in range(12)):
        low, high = 0.0, 1.0
        first = choose_rows(logits, [row(own, top_p=low, **options)])
        while (middle := (low + high) / 2) not in (low, high):
            same = choose_rows(logits, [row(own, top_p=middle, **options)]) == first
            low, high = (middle, high) if same else (low, middle)
        rows += [row(own, top_p=low, **options), row(own, top_p=high, **options)]
    alone = [choose_rows(logits, [single])[0] for single in rows]
    assert sum(one != other for one, other in zip(alone[::2], alone[1::2], strict=True)) > 5
    several = torch.cat([logits.repeat(len(rows), 1), logits_of(4, 13, 30_011)])
    others = [row(3, temperature=0.4, top_k=7), *[row(7, temperature=2.0)] * 12]
    assert plain(choose_rows(several, [*rows, *others]))[: len(rows)] == plain(alone)
    assert plain(choose_rows(several.flip(0), [*others, *rows[::-1]]))[len(others) :] == plain(alone)[::-1]


def test_what_the_model_said_is_left_as_it_is() -> None:
    logits = logits_of(1, 3, 50)
    before = logits.clone()

    def overwrite(given: torch.Tensor, tokens: Any) -> torch.Tensor:
        return given.zero_()

    choose_rows(logits, [row(processors=(overwrite,)), row(frequency_penalty=2.0), row(temperature=1.0)])
    assert torch.equal(logits, before)
    with torch.inference_mode():
        within = before.clone()
    choose_rows(within, [row(processors=(overwrite,)), row(temperature=1.0), row()])  # what the engine hands over
    assert torch.equal(within, before)


def test_no_rows_are_no_work() -> None:
    assert choose_rows(torch.empty(0, 9), []) == []
    assert logprobs_of(torch.empty(0, 9), [], []) == []


# What is chosen


@pytest.mark.parametrize("temperature", [0.0, 0, 1e-9, 9e-6])
def test_no_temperature_takes_the_best_token_whatever_the_key(temperature: float) -> None:
    logits = logits_of(2, 20, 500)
    rows = [row(key(0, place), temperature=temperature, top_k=3, top_p=0.5) for place in range(20)]
    assert choose_rows(logits, rows) == logits.argmax(-1).tolist()
    assert choose_rows(torch.zeros(1, 9), [row()]) == [0]


def test_penalties_come_before_temperature_and_filters_as_in_transformers() -> None:
    tokens = [3, 4, 5, 3, 40, 4]
    context: Any = torch.tensor([tokens])
    for seed in range(10):
        logits = logits_of(seed, 1, 60)
        chain = LogitsProcessorList(
            [RepetitionPenaltyLogitsProcessor(1.8), TemperatureLogitsWarper(0.6), TopKLogitsWarper(10)]
        )
        probabilities = chain(context, logits.clone())[0].double().softmax(-1)
        keys = [key(seed, place) for place in range(50)]
        numbers = (drawn(torch.tensor(keys)[:, None], torch.arange(60)).double() + 0.5) * UNIT
        expected = ((-numbers).log1p() / probabilities).argmax(-1).tolist()
        options: dict[str, Any] = {"repetition_penalty": 1.8, "temperature": 0.6, "top_k": 10}
        rows = [row(own, tokens, **options) for own in keys]
        assert choose_rows(logits.repeat(50, 1), rows) == expected


def test_a_mask_comes_last_and_leaves_only_what_it_allows() -> None:
    logits = logits_of(3, 200, 77)
    allowed = np.zeros(77, bool)
    allowed[[4, 30, 76]] = True
    options = {"logit_bias": {7: 100.0}, "min_tokens": 9, "temperature": 1.0}
    rows = [row(key(0, place), mask=packed(allowed), **options) for place in range(200)]
    assert set(plain(choose_rows(logits, rows))) == {4, 30, 76}
    greedy = choose_rows(logits, [row(mask=packed(allowed)) for _ in range(200)])
    assert greedy == [max((4, 30, 76), key=lambda token: float(logits[place, token])) for place in range(200)]


def test_a_history_changes_the_cost_and_no_token() -> None:
    tokens = [1, 2, 3] * 50
    options: dict[str, Any] = {
        "dry_multiplier": 0.7,
        "frequency_penalty": 0.3,
        "repetition_penalty": 1.2,
        "temperature": 1.0,
    }
    history, source = History(), np.random.default_rng(0)
    for step in range(40):
        logits = logits_of(step, 3, 200)
        drafts = source.integers(0, 5, 2).tolist()
        rows = [
            Row(Sampling(**options), tokens + drafts[:place], 150, key(5, step + place), NONE, NONE)
            for place in range(3)
        ]
        followed = [replace(single, drafts=place, history=history) for place, single in enumerate(rows)]
        found = choose_rows(logits, followed)
        assert found == choose_rows(logits, rows)
        tokens = [*tokens, *plain(found)[: 1 + step % 3]]  # type: ignore[list-item]


# What fails


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE])
@pytest.mark.parametrize("others", [{}, {"presence_penalty": 1.0}, {"processors": FAILING}])
def test_a_model_that_gives_no_numbers_is_found_out(temperature: float, value: float, others: dict[str, Any]) -> None:
    for place in (0, 30, 59):
        logits = logits_of(5, 3, 60)
        logits[1, place] = value
        outcomes = choose_rows(logits, [row(temperature=temperature, **others) for _ in range(3)])
        assert isinstance(outcomes[1], GenerationError)
        assert "logits are not finite" in outcomes[1].what and outcomes[1].where == "position 4"
        assert "FAILING" in str(others) or plain(outcomes)[::2] == plain(
            [choose_rows(logits[[sound]], [row(temperature=temperature, **others)])[0] for sound in (0, 2)]
        )


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize(
    "options, told",
    [
        ({"processors": (lambda logits, tokens: logits - INFINITE,)}, "No token is left"),
        ({"processors": (lambda logits, tokens: logits * NAN,)}, "made logits that are not finite"),
        ({"processors": (lambda logits, tokens: logits + INFINITE,)}, "made logits that are not finite"),
        ({"processors": (lambda logits, tokens: 1 / 0,)}, "ZeroDivisionError"),
        ({"mask": np.zeros(2, np.int32)}, "No token is left"),
        ({"mask": np.array([1, 0], np.int32), "min_tokens": 9}, "No token is left"),
    ],
    ids=range(6),
)
def test_what_a_request_does_to_itself_it_does_to_itself_alone(
    temperature: float, options: dict[str, Any], told: str
) -> None:
    logits = logits_of(6, 3, 40)
    rows = [row(temperature=temperature, **given) for given in ({}, options, {"presence_penalty": 1.0})]
    outcomes = choose_rows(logits, rows)
    assert isinstance(outcomes[1], GenerationError) and told in outcomes[1].what
    assert [outcomes[0], outcomes[2]] == choose_rows(logits[[0, 2]], [rows[0], rows[2]])


# Log-probabilities


def test_log_probabilities_are_those_of_log_softmax() -> None:
    logits = logits_of(7, 100, 3001, 4.0)
    tokens = torch.randint(0, 3001, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    tops = [place % 21 for place in range(100)]
    expected = logits.double().log_softmax(-1)
    for place, (own, best) in enumerate(logprobs_of(logits, tokens, tops)):
        assert own == pytest.approx(float(expected[place, tokens[place]]), abs=1e-6)
        values, indices = expected[place].topk(tops[place])
        assert [token for token, _ in best] == indices.tolist()
        assert [value for _, value in best] == pytest.approx(values.tolist(), abs=1e-6)


def test_equal_log_probabilities_stand_in_the_order_of_their_tokens() -> None:
    logits = torch.zeros(2, 50)
    logits[0, 40] = logits[1, 3] = 1.0
    logits[1, 9] = -INFINITE
    one, other = logprobs_of(logits, [0, 9], [4, 50])
    assert [token for token, _ in one[1]] == [40, 0, 1, 2]
    assert [token for token, _ in other[1]] == [3, 0, 1, 2, *range(4, 9), *range(10, 50), 9]
    assert other[0] == -INFINITE == other[1][-1][1]
    [(_, few)] = logprobs_of(torch.zeros(1, 3), [0], [20])
    assert len(few) == 3


def test_log_probabilities_are_bit_for_bit_the_same_alone() -> None:
    logits = logits_of(8, 70, 5003)
    together = logprobs_of(logits, [3] * 70, [5] * 70)
    assert together == [logprobs_of(logits[[place]], [3], [5])[0] for place in range(70)]
