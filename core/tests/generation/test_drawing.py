"""The draw of one row against a race of all tokens in plain numpy, and its filters against transformers' own."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from bestiary.generation.choosing import Row, _chosen
from bestiary.generation.drawing import UNSETTLED, draw
from bestiary.generation.randomness import UNIT, drawn, key
from bestiary.generation.sampling import Sampling
from bestiary.generation.selection import ByNumpy, ByTorch, Selection

V = 12
NONE: frozenset[int] = frozenset()
WAYS = pytest.mark.parametrize("by", [ByNumpy(), ByTorch()], ids=["numpy", "torch"])
KEYS = [key(0, place) for place in range(2000)]


def logits_of(seed: int, count: int = V, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * spread


def chosen(logits: torch.Tensor, sampling: Sampling, keys: Sequence[int], by: Selection) -> list[int]:
    """The tokens that win by these keys in one row."""
    rows = [Row(sampling, [0], 1, given, NONE, NONE) for given in keys]
    found = _chosen(logits.repeat(len(rows), 1), rows, by)
    assert all(isinstance(token, int) for token in found)
    return [token for token in found if isinstance(token, int)]


def filtered(logits: torch.Tensor, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, probabilities) of what is left, best first: temperature, softmax, top_k, top_p, min_p, then to one."""
    scaled = logits.numpy().astype(np.float64) / sampling.temperature
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    tokens = np.argsort(-probabilities, kind="stable")
    if sampling.top_k:
        tokens = tokens[: sampling.top_k]
    kept: list[int] = []
    total = 0.0
    for token in tokens:
        if not kept or total < sampling.top_p or sampling.top_p == 1.0:
            kept.append(token)
        total += probabilities[token]
    best = probabilities[kept[0]]
    left = np.array([token for token in kept if probabilities[token] >= sampling.min_p * best])
    return left, probabilities[left] / probabilities[left].sum()


def winners(tokens: np.ndarray, probabilities: np.ndarray, keys: Sequence[int]) -> list[int]:
    """By a race of all that are left: the least exponential number, divided by the probability."""
    order = np.argsort(tokens)
    numbers = (drawn(np.array(keys)[:, None], tokens[order][None]) + 0.5) * UNIT
    with np.errstate(divide="ignore", over="ignore"):
        times = -np.log1p(-numbers) / probabilities[order]
    return [int(token) for token in tokens[order][times.argmin(-1)]]


OPTIONS = [
    {},
    {"temperature": 1e-5},
    {"temperature": 0.01},
    {"temperature": 0.3},
    {"temperature": 2.0},
    {"temperature": 100.0},
    {"top_k": 0},
    {"top_k": 1},
    {"top_k": 4},
    {"top_k": 500},
    {"top_p": 0.0},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"top_k": 5, "top_p": 0.7},
    {"top_k": 5, "min_p": 0.2},
    {"top_p": 0.7, "min_p": 0.2},
    {"temperature": 1.7, "top_k": 6, "top_p": 0.8, "min_p": 0.15},
]
LARGE = [
    *OPTIONS,
    {"top_k": 40, "top_p": 0.95},
    {"top_k": 3000},
    {"temperature": 30.0, "top_p": 0.9},
    {"min_p": 1e-5},
]


# Against the race of all


@WAYS
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_winner_is_that_of_a_race_of_all_that_the_filters_leave(options: dict[str, Any], by: Selection) -> None:
    sampling = Sampling(**{"temperature": 1.0, **options})
    for seed in range(20):
        logits = logits_of(seed)
        logits = (logits * 2).round() / 2 if seed % 2 else logits  # many are equal
        assert chosen(logits, sampling, KEYS[:100], by) == winners(*filtered(logits, sampling), KEYS[:100])


@WAYS
@pytest.mark.parametrize("options", LARGE, ids=str)
def test_a_large_vocabulary_is_no_other(options: dict[str, Any], by: Selection) -> None:
    """Where the most probable tokens decide at once, where more must be looked at, and where all."""
    sampling = Sampling(**{"temperature": 1.0, **options})
    for seed, spread in enumerate((3.0, 1.0, 0.05)):
        logits = logits_of(seed, 20_011, spread)
        for given in (logits, logits.bfloat16().float()):
            keys = KEYS[seed * 20 : seed * 20 + 12]
            assert chosen(given, sampling, keys, by) == winners(*filtered(given, sampling), keys)


@WAYS
@pytest.mark.parametrize("temperature", [1e-5, 0.5, 1.0, 2.0])
def test_all_tokens_race_though_few_are_looked_at(temperature: float, by: Selection) -> None:
    """Nearly all, half, a few and none of the winners are beyond the most probable thousand."""
    sampling = Sampling(temperature=temperature)
    for seed, logits in enumerate(
        (
            torch.zeros(50_021),
            logits_of(1, 50_021, 1e-3),
            logits_of(2, 50_021, 2.0),
            torch.arange(1.0, 50_022).log().mul(-1.2),
            torch.cat([torch.zeros(50_000), torch.tensor([10.0])]),
        )
    ):
        keys = KEYS[seed * 100 : seed * 100 + 25]
        assert chosen(logits, sampling, keys, by) == winners(*filtered(logits, sampling), keys)


@WAYS
@pytest.mark.parametrize("options", [*OPTIONS, {"top_k": 40, "top_p": 0.95}, {"top_k": 300}], ids=str)
def test_the_most_probable_tokens_decide_alone_or_not_at_all(options: dict[str, Any], by: Selection) -> None:
    """However few are looked at first, they give what all give, or nothing."""
    sampling = Sampling(**{"temperature": 1.0, **options})
    settled = 0
    for seed in range(5):
        # As in bfloat16 many logits are equal, so that the border falls among such.
        logits = (logits_of(seed, 500) * 4).round().div(4).repeat(20, 1)
        given = (logits.amax(-1), [sampling] * 20, KEYS[:20])
        every = draw(logits, *given, 500, by)
        assert (every != UNSETTLED).all()
        for most in (1, 2, 7, 60, 499):
            found = draw(logits, *given, most, by)
            assert (found[found != UNSETTLED] == every[found != UNSETTLED]).all()
            settled += int((found != UNSETTLED).sum())
    assert settled > 50


@WAYS
def test_logarithms_of_a_library_never_decide(by: Selection) -> None:
    """Where the second token's logit is that at which both would win at once, to a few parts in 10 ** 10."""
    close = 0
    for given in (key(8, place) for place in range(3000)):
        first, second = (
            -math.log(-math.log1p(-((number + 0.5) * UNIT)))
            for number in drawn(torch.tensor([given]), torch.arange(2)).tolist()
        )
        logits = torch.tensor([[0.0, first - second]])
        distance = first - (second + float(logits[0, 1]))
        if logits[0, 1] > 0.0 or abs(distance) > 5e-10:
            continue
        close += 1
        alone = draw(logits, logits.amax(-1), [Sampling(temperature=1.0)], [given], 2, by)
        assert alone.tolist() == [0 if distance >= 0 else 1]
        # Among a thousand of no probability, where those that are looked at first do not settle it.
        wide = torch.cat([logits, torch.full((1, 998), -1e4)], -1)
        first_look = draw(wide, wide.amax(-1), [Sampling(temperature=1.0)], [given], 10, by)
        assert first_look.tolist() == [UNSETTLED]
        assert chosen(wide[0], Sampling(temperature=1.0), [given], by) == alone.tolist()
    assert close > 10


# Filters


@WAYS
@pytest.mark.parametrize(
    "options, warper",
    [
        ({"top_k": 3}, TopKLogitsWarper(3)),
        ({"top_p": 0.6}, TopPLogitsWarper(0.6)),
        ({"top_p": 0.9}, TopPLogitsWarper(0.9)),
        ({"min_p": 0.2}, MinPLogitsWarper(0.2)),
    ],
    ids=["top_k", "top_p", "larger top_p", "min_p"],
)
def test_each_filter_alone_keeps_the_tokens_that_transformers_keeps(
    options: dict[str, Any], warper: Any, by: Selection
) -> None:
    for seed in range(6):
        logits = logits_of(seed, count=6, spread=1.0)
        kept = torch.isfinite(warper(None, logits[None])[0]).nonzero().flatten().tolist()
        assert set(chosen(logits, Sampling(temperature=1.0, **options), KEYS, by)) == set(kept)


@WAYS
def test_the_whole_chain_gives_the_distribution_of_transformers_chain(by: Selection) -> None:
    no_tokens: Any = None
    for seed in range(8):
        logits = logits_of(seed, count=200, spread=3.0)
        options: dict[str, Any] = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02}
        # transformers' top_p is of what top_k left; ours is of the whole.
        share = (logits / 0.8).softmax(-1).topk(20).values.sum().item()
        chain = LogitsProcessorList(
            [
                TemperatureLogitsWarper(0.8),
                TopKLogitsWarper(20),
                TopPLogitsWarper(min(1.0, 0.9 / share)),
                MinPLogitsWarper(0.02),
            ]
        )
        probabilities = chain(no_tokens, logits[None])[0].double().softmax(-1).numpy()
        found = chosen(logits, Sampling(**options), KEYS, by)
        assert found == winners(np.arange(200), probabilities, KEYS)
        assert set(found) == set(np.flatnonzero(probabilities))


@WAYS
def test_top_p_stops_at_the_token_that_reaches_it(by: Selection) -> None:
    logits = torch.tensor([0.125, 0.5, 0.25, 0.125]).log()
    for top_p, kept in ((0.0, {1}), (0.5, {1}), (0.51, {1, 2}), (0.75, {1, 2}), (0.76, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        assert set(chosen(logits, Sampling(temperature=1.0, top_p=top_p), KEYS, by)) == kept, top_p


@WAYS
def test_temperature_comes_before_the_filters(by: Selection) -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    cases: list[tuple[dict[str, Any], set[int]]] = [
        ({"temperature": 1.0, "top_p": 0.6}, {0, 1}),
        ({"temperature": 0.1, "top_p": 0.6}, {0}),
        ({"temperature": 100.0, "top_p": 0.7}, {0, 1, 2}),
        ({"temperature": 1.0, "min_p": 0.5}, {0, 1}),
        ({"temperature": 3.0, "min_p": 0.5}, {0, 1, 2}),
    ]
    for options, kept in cases:
        assert set(chosen(logits, Sampling(**options), KEYS, by)) == kept


@WAYS
def test_of_tokens_of_one_probability_the_lowest_stay(by: Selection) -> None:
    assert set(chosen(torch.zeros(9), Sampling(temperature=1.0, top_k=3), KEYS, by)) == {0, 1, 2}
    assert set(chosen(torch.zeros(5000), Sampling(temperature=1.0, top_k=3), KEYS[:60], by)) == {0, 1, 2}
    assert set(chosen(torch.zeros(9), Sampling(temperature=1.0, min_p=1.0), KEYS, by)) == {*range(9)}
    assert max(chosen(torch.zeros(5000), Sampling(temperature=1.0, top_p=0.5), KEYS[:60], by)) in range(2300, 2500)


@WAYS
def test_a_very_improbable_tail_is_never_out_of_range(by: Selection) -> None:
    for height, temperature in ((30.0, 1.0), (1e38, 1e-4), (3e38, 1e-5)):
        logits = torch.full((50_000,), -height)
        logits[7] = height
        assert chosen(logits, Sampling(temperature=temperature), KEYS[:3], by) == [7, 7, 7]


@WAYS
@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.0001}], ids=str)
def test_tokens_that_are_ruled_out_never_win(options: dict[str, Any], by: Selection) -> None:
    sampling = Sampling(temperature=2.0, **options)
    for left in ([2999], [5, 2998], [*range(1000, 1400)]):
        logits = torch.full((40, 3000), -torch.inf)
        logits[:, left] = -5.0
        found = draw(logits, logits.amax(-1), [sampling] * 40, KEYS[:40], 3000, by)
        assert set(found.tolist()) <= set(left)
        few = draw(logits, logits.amax(-1), [sampling] * 40, KEYS[:40], 64, by)
        assert ((few == found) | (few == UNSETTLED)).all() and (options or (few == found).all())


# Distributions


def critical(freedom: int) -> float:
    """99.99 % of the chi-square distribution (Wilson and Hilferty 1931)."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + 3.719 * part**0.5) ** 3)


def assert_distributed(found: Sequence[int], groups: Sequence[Sequence[int]], probabilities: Sequence[float]) -> None:
    counts = Counter(found)
    counted = np.array([sum(counts.pop(token, 0) for token in group) for group in groups])
    assert not counts
    expected = np.array(probabilities) * len(found)
    assert expected.min() > 5 and expected.sum() == pytest.approx(len(found))
    assert float(((counted - expected) ** 2 / expected).sum()) < critical(len(groups) - 1)


@WAYS
@pytest.mark.parametrize(
    "options, left",
    [
        ({}, 12),
        ({"temperature": 2.0}, 12),
        ({"temperature": 0.7, "top_k": 6}, 6),
        ({"top_k": 4}, 4),
        ({"top_p": 0.8}, 8),
        ({"min_p": 0.3}, 9),
    ],
)
def test_tokens_are_distributed_as_the_filters_say(options: dict[str, Any], left: int, by: Selection) -> None:
    sampling = Sampling(**{"temperature": 1.0, **options})
    logits = logits_of(3, spread=0.7)
    tokens, probabilities = filtered(logits, sampling)
    assert len(tokens) == left
    found = chosen(logits, sampling, [key(11, place) for place in range(8000)], by)
    assert_distributed(found, [[int(token)] for token in tokens], probabilities.tolist())


@WAYS
def test_a_large_vocabulary_is_distributed_as_its_probabilities_say(by: Selection) -> None:
    """A third of the probability is beyond the most probable thousand; in groups of like probability."""
    logits = torch.arange(1.0, 6001).log().mul(-0.8)[torch.randperm(6000, generator=torch.Generator().manual_seed(1))]
    tokens, probabilities = filtered(logits, Sampling(temperature=1.0))
    edges = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1024, 1200, 1500, 2000, 2500, 3000, 4000, 5000, 6000]
    found = [
        token
        for start in range(0, 6000, 500)
        for token in chosen(logits, Sampling(temperature=1.0), [key(2, start + place) for place in range(500)], by)
    ]
    groups = [tokens[start:end].tolist() for start, end in pairwise(edges)]
    shares = [float(probabilities[start:end].sum()) for start, end in pairwise(edges)]
    assert sum(shares[12:]) > 0.3
    assert_distributed(found, groups, shares)


@WAYS
@pytest.mark.parametrize("options", [{}, {"top_p": 0.95}, {"top_k": 50, "temperature": 0.7}], ids=str)
def test_near_distributions_agree_as_often_as_the_theory_says(options: dict[str, Any], by: Selection) -> None:
    """Daliri, Musco and Suresh 2024: sum_i 1 / sum_j max(p_j / p_i, q_j / q_i)."""
    sampling = Sampling(**{"temperature": 1.0, **options})
    for seed in range(3):
        logits = logits_of(seed, 1000, 3.0)
        near = logits + logits_of(seed + 100, 1000, 0.1 * (1 + seed))
        one, other = (np.zeros(1000) for _ in range(2))
        for given, row in ((logits, one), (near, other)):
            tokens, probabilities = filtered(given, sampling)
            row[tokens] = probabilities
        both = np.flatnonzero((one > 0) & (other > 0))
        theory = sum(1 / np.maximum(one / one[token], other / other[token]).sum() for token in both)
        pairs = zip(chosen(logits, sampling, KEYS, by), chosen(near, sampling, KEYS, by), strict=True)
        agreed = sum(first == second for first, second in pairs) / len(KEYS)
        assert abs(agreed - theory) < 4 * (theory * (1 - theory) / len(KEYS)) ** 0.5
        assert theory > 0.95 * np.minimum(one, other).sum()  # what any coupling at all can reach
