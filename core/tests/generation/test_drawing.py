"""The draw of one row against its rule in plain numpy, and its filters against transformers' own."""

from collections import Counter
from collections.abc import Sequence
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
from bestiary.generation.randomness import uniform
from bestiary.generation.sampling import Sampling
from bestiary.generation.selection import ByNumpy, ByTorch, Selection

V = 12
NONE: frozenset[int] = frozenset()
WAYS = pytest.mark.parametrize("by", [ByNumpy(), ByTorch()], ids=["numpy", "torch"])
EVENLY = [(place + 0.5) / 4000 for place in range(4000)]


def logits_of(seed: int, count: int = V, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * spread


def drawn(logits: torch.Tensor, sampling: Sampling, uniforms: Sequence[float], by: Selection) -> list[int]:
    """The tokens that these numbers pick from one row."""
    rows = [Row(sampling, [0], 1, number, NONE, NONE) for number in uniforms]
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
    kept, total = [], 0.0
    for token in tokens:
        if not kept or total < sampling.top_p or sampling.top_p == 1.0:
            kept.append(token)
        total += probabilities[token]
    best = probabilities[kept[0]]
    left = np.array([token for token in kept if probabilities[token] >= sampling.min_p * best])
    return left, probabilities[left] / probabilities[left].sum()


def assert_picks(
    found: Sequence[int], uniforms: Sequence[float], tokens: np.ndarray, probabilities: np.ndarray
) -> None:
    """Each number lies in the interval of its token, when the tokens stand in this order; but for rounding."""
    sums = np.concatenate([[0.0], probabilities.cumsum()])
    places = {int(token): place for place, token in enumerate(tokens)}
    for token, number in zip(found, uniforms, strict=True):
        place = places[token]
        assert sums[place] - 1e-6 <= number <= sums[place + 1] + 1e-6


OPTIONS = [
    {},
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


@WAYS
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_one_uniform_number_picks_from_what_the_filters_leave(options: dict[str, Any], by: Selection) -> None:
    sampling = Sampling(**{"temperature": 1.0, **options})
    for seed in range(20):
        logits = logits_of(seed)
        uniforms = [0.0, *(uniform(seed, place) for place in range(40)), 1 - 2**-53]
        assert_picks(drawn(logits, sampling, uniforms, by), uniforms, *filtered(logits, sampling))


@WAYS
@pytest.mark.parametrize(
    "options", [*OPTIONS, {"top_k": 40, "top_p": 0.95}, {"top_k": 3000}, {"temperature": 30.0, "top_p": 0.9}], ids=str
)
def test_a_large_vocabulary_is_no_other(options: dict[str, Any], by: Selection) -> None:
    """Where the most probable tokens decide at once, where more must be looked at, and where all."""
    sampling = Sampling(**{"temperature": 1.0, **options})
    for seed, spread in enumerate((3.0, 1.0, 0.05)):
        logits = logits_of(seed, 20_011, spread)
        uniforms = [0.0, 0.1, 0.5, 0.9, 0.99, 1 - 2**-53]
        assert_picks(drawn(logits, sampling, uniforms, by), uniforms, *filtered(logits, sampling))


@WAYS
@pytest.mark.parametrize("options", [*OPTIONS, {"top_k": 40, "top_p": 0.95}, {"top_k": 300}], ids=str)
def test_the_most_probable_tokens_decide_alone_or_not_at_all(options: dict[str, Any], by: Selection) -> None:
    """However few are looked at first, they give what all give, or nothing."""
    sampling = Sampling(**{"temperature": 1.0, **options})
    uniforms = EVENLY[::200]
    settled = 0
    for seed in range(5):
        # As in bfloat16 many logits are equal, so that the border falls among such.
        logits = (logits_of(seed, 500) * 4).round().div(4).repeat(len(uniforms), 1)
        given = (logits.amax(-1), [sampling] * len(uniforms), uniforms)
        every = draw(logits, *given, 500, by)
        assert (every != UNSETTLED).all()
        for most in (1, 2, 7, 60, 499):
            found = draw(logits, *given, most, by)
            assert (found[found != UNSETTLED] == every[found != UNSETTLED]).all()
            settled += int((found != UNSETTLED).sum())
    assert settled > 50


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
        assert set(drawn(logits, Sampling(temperature=1.0, **options), EVENLY, by)) == set(kept)


@WAYS
def test_the_whole_chain_gives_the_distribution_of_transformers_chain(by: Selection) -> None:
    for seed in range(8):
        logits = logits_of(seed, count=200, spread=3.0)
        options = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02}
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
        probabilities = chain(None, logits[None])[0].double().softmax(-1).numpy()
        tokens = np.argsort(-probabilities, kind="stable")[: (probabilities > 0).sum()]
        found = drawn(logits, Sampling(**options), EVENLY, by)
        assert set(found) == set(tokens.tolist())
        assert_picks(found, EVENLY, tokens, probabilities[tokens])


@WAYS
def test_top_p_stops_at_the_token_that_reaches_it(by: Selection) -> None:
    logits = torch.tensor([0.125, 0.5, 0.25, 0.125]).log()
    for top_p, kept in ((0.0, {1}), (0.5, {1}), (0.51, {1, 2}), (0.75, {1, 2}), (0.76, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        assert set(drawn(logits, Sampling(temperature=1.0, top_p=top_p), EVENLY, by)) == kept, top_p


@WAYS
def test_temperature_comes_before_the_filters(by: Selection) -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    for options, kept in (
        ({"temperature": 1.0, "top_p": 0.6}, {0, 1}),
        ({"temperature": 0.1, "top_p": 0.6}, {0}),
        ({"temperature": 100.0, "top_p": 0.7}, {0, 1, 2}),
        ({"temperature": 1.0, "min_p": 0.5}, {0, 1}),
        ({"temperature": 3.0, "min_p": 0.5}, {0, 1, 2}),
    ):
        assert set(drawn(logits, Sampling(**options), EVENLY, by)) == kept


@WAYS
def test_tokens_of_one_probability_stand_in_the_order_of_their_ids(by: Selection) -> None:
    few = EVENLY[::100]
    assert set(drawn(torch.zeros(9), Sampling(temperature=1.0, top_k=3), EVENLY, by)) == {0, 1, 2}
    assert set(drawn(torch.zeros(5000), Sampling(temperature=1.0, top_k=3), few, by)) == {0, 1, 2}
    assert drawn(torch.zeros(9), Sampling(temperature=1.0, min_p=1.0), EVENLY[::500], by) == sorted(range(9))[:8]
    assert drawn(torch.zeros(5000), Sampling(temperature=1.0), few, by) == [int(number * 5000) for number in few]


# 99.99 % of the chi-square distribution with so many degrees of freedom (Abramowitz and Stegun, table 26.8).
CRITICAL = {3: 21.1, 5: 25.7, 11: 37.4}


@WAYS
@pytest.mark.parametrize("options, freedom", [({}, 11), ({"temperature": 0.7, "top_k": 6}, 5), ({"top_k": 4}, 3)])
def test_drawn_tokens_are_distributed_as_the_filters_say(options: dict[str, Any], freedom: int, by: Selection) -> None:
    sampling = Sampling(**{"temperature": 1.0, **options})
    logits, draws = logits_of(3, spread=0.7), 8000
    counts = Counter(drawn(logits, sampling, [uniform(11, place) for place in range(draws)], by))
    tokens, probabilities = filtered(logits, sampling)
    assert set(counts) <= set(tokens.tolist()) and len(tokens) == freedom + 1
    expected = probabilities * draws
    found = np.array([counts[int(token)] for token in tokens])
    assert float(((found - expected) ** 2 / expected).sum()) < CRITICAL[freedom]


@WAYS
def test_near_distributions_mostly_give_one_token_for_one_number(by: Selection) -> None:
    """As often as the intervals of a token overlap, when each distribution stands in its own order."""
    sampling = Sampling(temperature=0.7, top_p=0.95)
    for seed in range(5):
        logits = logits_of(seed, 1000, 5.0)
        near = logits + logits_of(seed + 100, 1000, 0.1)
        one, other = (_intervals(*filtered(given, sampling)) for given in (logits, near))
        overlap = sum(max(0.0, min(one[t][1], other[t][1]) - max(one[t][0], other[t][0])) for t in {*one} & {*other})
        pairs = zip(drawn(logits, sampling, EVENLY, by), drawn(near, sampling, EVENLY, by), strict=True)
        agreed = sum(first == second for first, second in pairs) / len(EVENLY)
        assert abs(agreed - overlap) < 1e-3 and agreed > 0.75


def _intervals(tokens: np.ndarray, probabilities: np.ndarray) -> dict[int, tuple[float, float]]:
    sums = probabilities.cumsum()
    return {int(token): (end - size, end) for token, end, size in zip(tokens, sums, probabilities, strict=True)}


@WAYS
def test_a_very_improbable_tail_is_never_out_of_range(by: Selection) -> None:
    for height, temperature in ((30.0, 1.0), (1e38, 1e-4), (3e38, 1e-5)):
        logits = torch.full((50_000,), -height)
        logits[7] = height
        assert drawn(logits, Sampling(temperature=temperature), [0.0, 0.5, 1 - 2**-53], by) == [7, 7, 7]
    alone = torch.full((3000,), -torch.inf)
    alone[2999] = -5.0
    assert drawn(alone, Sampling(temperature=2.0, top_p=0.9), [0.0, 1 - 2**-53], by) == [2999, 2999]
