"""Sampling: the bounds of every option, and the choice against a plain statement of its rule."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from bestiary.errors import OptionError
from bestiary.generation.sampling import Sampling, choose, defaults_from, merged

V = 12
BIG = 10**5000


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logits_of(seed: int, count: int = V, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(count, generator=generator(seed)) * spread


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


def reachable(logits: torch.Tensor, sampling: Sampling, draws: int = 300) -> set[int]:
    source = generator(0)
    return {choose(logits, sampling, source) for _ in range(draws)}


# The choice


@pytest.mark.parametrize("temperature", [0.0, 0, 1e-9, 9e-6])
def test_no_temperature_takes_the_best_token_and_no_random_number(temperature: float) -> None:
    for seed in range(20):
        source = generator(0)
        logits = logits_of(seed)
        assert choose(logits, Sampling(temperature=temperature, top_k=3, top_p=0.5), source) == int(logits.argmax())
        assert torch.equal(source.get_state(), generator(0).get_state())


@pytest.mark.parametrize(
    "options",
    [
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
    ],
    ids=str,
)
def test_one_uniform_number_picks_from_what_the_filters_leave(options: dict[str, Any]) -> None:
    sampling = Sampling(**{"temperature": 1.0, **options})
    for seed in range(60):
        logits = logits_of(seed)
        tokens, probabilities = filtered(logits, sampling)
        uniform = torch.rand((), generator=generator(seed), dtype=torch.float64).item()
        expected = tokens[min(int(np.searchsorted(probabilities.cumsum(), uniform, side="right")), len(tokens) - 1)]
        assert choose(logits, sampling, generator(seed)) == expected


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
def test_each_filter_alone_keeps_the_tokens_that_transformers_keeps(options: dict[str, Any], warper: Any) -> None:
    for seed in range(6):
        logits = logits_of(seed, count=6, spread=1.0)
        kept = torch.isfinite(warper(None, logits[None])[0]).nonzero().flatten().tolist()
        assert reachable(logits, Sampling(temperature=1.0, **options)) == set(kept)


def test_top_p_stops_at_the_token_that_reaches_it() -> None:
    logits = torch.tensor([0.125, 0.5, 0.25, 0.125]).log()
    for top_p, kept in ((0.0, {1}), (0.5, {1}), (0.51, {1, 2}), (0.75, {1, 2}), (0.76, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        assert reachable(logits, Sampling(temperature=1.0, top_p=top_p)) == kept, top_p


def test_temperature_comes_before_the_filters() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    assert reachable(logits, Sampling(temperature=1.0, top_p=0.6)) == {0, 1}
    assert reachable(logits, Sampling(temperature=0.1, top_p=0.6)) == {0}
    assert reachable(logits, Sampling(temperature=100.0, top_p=0.7)) == {0, 1, 2}
    assert reachable(logits, Sampling(temperature=1.0, min_p=0.5)) == {0, 1}
    assert reachable(logits, Sampling(temperature=3.0, min_p=0.5)) == {0, 1, 2}


def test_tokens_of_one_probability_are_kept_in_the_order_of_their_ids() -> None:
    assert reachable(torch.zeros(9), Sampling(temperature=1.0, top_k=3)) == {0, 1, 2}
    assert reachable(torch.zeros(5000), Sampling(temperature=1.0, top_k=3), 50) == {0, 1, 2}
    assert reachable(torch.zeros(9), Sampling(temperature=1.0, min_p=1.0)) == set(range(9))
    assert choose(torch.zeros(9), Sampling(), generator(0)) == 0


# 99.99 % of the chi-square distribution with so many degrees of freedom (Abramowitz and Stegun, table 26.8).
CRITICAL = {3: 21.1, 5: 25.7, 11: 37.4}


@pytest.mark.parametrize("options, freedom", [({}, 11), ({"temperature": 0.7, "top_k": 6}, 5), ({"top_k": 4}, 3)])
def test_drawn_tokens_are_distributed_as_the_filters_say(options: dict[str, Any], freedom: int) -> None:
    sampling = Sampling(**{"temperature": 1.0, **options})
    logits, source, draws = logits_of(3, spread=0.7), generator(11), 4000
    counts = Counter(choose(logits, sampling, source) for _ in range(draws))
    tokens, probabilities = filtered(logits, sampling)
    assert set(counts) <= set(tokens.tolist()) and len(tokens) == freedom + 1
    expected = probabilities * draws
    drawn = np.array([counts[int(token)] for token in tokens])
    assert float(((drawn - expected) ** 2 / expected).sum()) < CRITICAL[freedom]


def test_the_same_seed_gives_the_same_tokens() -> None:
    sampling = Sampling(temperature=1.0)

    def draw(seed: int) -> list[int]:
        source = generator(seed)
        return [choose(logits_of(step), sampling, source) for step in range(50)]

    assert draw(5) == draw(5) != draw(6)


def test_a_very_improbable_tail_is_never_out_of_range() -> None:
    logits = torch.full((50_000,), -30.0)
    logits[7] = 30.0
    assert reachable(logits, Sampling(temperature=1.0), 50) == {7}
    logits = torch.full((50_000,), -1e38)
    logits[7] = 1e38
    assert reachable(logits, Sampling(temperature=1e-4), 5) == {7}


# Bounds

HOSTILE = [-1, 2**31 + 1, 2**63, 2**64, BIG, -BIG, math.nan, math.inf, -math.inf, True, "3", "", [], {}, [3], object()]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("name", ["max_tokens", "temperature", "top_k", "top_p", "min_p", "logprobs"])
def test_a_number_out_of_bounds_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        Sampling(**{name: value})


@pytest.mark.parametrize(
    "name, bad, good",
    [
        ("max_tokens", 0, 1),
        ("max_tokens", 1.0, 1 << 31),
        ("temperature", -0.001, 0.0),
        ("temperature", 100.001, 100.0),
        ("temperature", None, 1),
        ("top_k", 1.0, None),
        ("top_p", 1.0001, 1.0),
        ("top_p", None, 0),
        ("min_p", -1e-9, 0.0),
        ("min_p", None, 1.0),
        ("seed", 2**63, 2**63 - 1),
        ("seed", -(2**63) - 1, -(2**63)),
        ("seed", 1.0, None),
        ("seed", BIG, 0),
        ("logprobs", 21, 20),
        ("logprobs", 1.0, 0),
        ("stop", "", "a"),
        ("stop", ["a", ""], ["a", "b"]),
        ("stop", ["a"] * 65, ["a"] * 64),
        ("stop", "a" * 1025, "a" * 1024),
        ("stop", [3], ()),
        ("stop", 3, None),
        ("stop", [None], []),
        ("stop_tokens", [-1], [0]),
        ("stop_tokens", [True], (1, 2)),
        ("stop_tokens", ["1"], []),
        ("stop_tokens", [None], None),
        ("stop_tokens", 3, [3]),
        ("stop_tokens", [1] * 5000, [1] * 64),
        ("ignore_eos", "no", False),
        ("ignore_eos", 1, True),
        ("ignore_eos", None, True),
    ],
    ids=lambda value: "digits" if value == BIG else str(value)[:20],
)
def test_bounds_are_exact(name: str, bad: Any, good: Any) -> None:
    Sampling(**{name: good})
    with pytest.raises(OptionError, match=name):
        Sampling(**{name: bad})


def test_every_seed_in_bounds_seeds_a_generator() -> None:
    for seed in (-(2**63), -1, 0, 2**63 - 1):
        torch.Generator().manual_seed(Sampling(seed=seed).seed or 0)


def test_one_stop_text_is_not_a_list_of_letters() -> None:
    assert Sampling(stop="end").stop == ("end",)
    assert Sampling(stop=["a", "b"]).stop == ("a", "b")
    assert Sampling(stop=None).stop == () and Sampling(stop_tokens=None).stop_tokens == ()


# Options and defaults


def test_options_replace_defaults_one_by_one() -> None:
    defaults = Sampling(temperature=0.6, top_p=0.9)
    assert merged(defaults, {"top_p": 0.5}) == Sampling(temperature=0.6, top_p=0.5)
    assert merged(defaults, {}) == defaults
    with pytest.raises(OptionError, match="top_p"):
        merged(defaults, {"top_p": 2})


@pytest.mark.parametrize("name, near", [("temprature", "temperature"), ("topk", "top_k"), ("maxtokens", "max_tokens")])
def test_an_unknown_option_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(OptionError) as found:
        merged(Sampling(), {name: 1})
    assert name in found.value.what and near in str(found.value.fix)


def test_an_option_like_no_other_lists_them_all() -> None:
    with pytest.raises(OptionError) as found:
        merged(Sampling(), {"zzz": 1})
    assert all(name in str(found.value.fix) for name in ("temperature", "ignore_eos", "min_p"))


@pytest.mark.parametrize(
    "config, expected",
    [
        ({}, Sampling()),
        ({"do_sample": False, "temperature": 0.7}, Sampling()),
        ({"temperature": 0.7}, Sampling()),
        ({"do_sample": True}, Sampling(temperature=1.0)),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05},
            Sampling(temperature=0.6, top_k=20, top_p=0.95, min_p=0.05),
        ),
        ({"do_sample": True, "temperature": None, "top_k": None}, Sampling(temperature=1.0)),
        ({"max_new_tokens": 64, "eos_token_id": [1, 2], "unknown": {}}, Sampling(max_tokens=64)),
        ({"max_new_tokens": None}, Sampling()),
    ],
)
def test_the_authors_settings_are_the_defaults(config: dict[str, Any], expected: Sampling) -> None:
    assert defaults_from(config) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"do_sample": True, "temperature": "0.7"},
        {"do_sample": True, "top_p": 3},
        {"do_sample": True, "top_k": -1},
        {"max_new_tokens": 0},
        {"max_new_tokens": True},
    ],
)
def test_malformed_settings_name_their_file(config: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as found:
        defaults_from(config)
    assert found.value.where == "generation_config.json"
