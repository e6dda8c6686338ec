"""Sampling: the bounds of every option, and where its defaults come from."""

import math
from typing import Any

import pytest

from bestiary.errors import OptionError
from bestiary.generation.randomness import derived, key
from bestiary.generation.sampling import Sampling, defaults_from, merged

BIG = 10**5000

# Bounds

HOSTILE = [-1, 2**31 + 1, 2**63, 2**64, BIG, -BIG, math.nan, math.inf, -math.inf, True, "3", "", [], {}, [3], object()]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize(
    "name", ["max_tokens", "temperature", "top_k", "top_p", "min_p", "logprobs", "prompt_logprobs", "n", "best_of"]
)
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
        ("prompt_logprobs", 21, 20),
        ("prompt_logprobs", -1, None),
        ("n", 0, 1),
        ("n", 129, 128),
        ("n", None, 2),
        ("best_of", 0, 1),
        ("best_of", 129, 128),
        ("best_of", 1.0, None),
        ("echo", "no", False),
        ("echo", None, True),
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


def test_the_best_are_chosen_from_no_fewer_than_are_returned() -> None:
    assert Sampling(n=3, best_of=3).best_of == 3
    with pytest.raises(OptionError, match="best_of is 2; a whole number from 3 to 128"):
        Sampling(n=3, best_of=2)
    with pytest.raises(OptionError, match="best_of"):
        merged(Sampling(best_of=2), {"n": 3})


def test_every_seed_in_bounds_gives_numbers() -> None:
    for seed in (-(2**63), -1, 0, 2**63 - 1):
        assert -(1 << 63) <= key(derived(Sampling(seed=seed).seed or 0, 1), 0) < 1 << 63


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
