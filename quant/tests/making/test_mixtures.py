"""A mixture gives each tensor the type that llama.cpp gives it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import OptionError
from bestiary_quant.making.mixtures import MIXTURES, Traits, assign

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("data").joinpath("mixtures.json").read_text())
MODELS = [name for name in RECORDED if name != "version"]


def expected(roles: dict[str, str]) -> dict[str, str]:
    """The scheme of each tensor, from a digit for each layer."""
    schemes = {digit: "q8_0" if digit == "8" else f"q{digit}k" for digit in "234568"}
    whole = {role: schemes[digits] for role, digits in roles.items() if not role.startswith(("self_attn", "mlp"))}
    return whole | {
        f"model.layers.{layer}.{role}": schemes[digit]
        for role, digits in roles.items()
        if role not in whole
        for layer, digit in enumerate(digits)
    }


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mixture", MIXTURES)
def test_types_are_those_of_llama_cpp(model: str, mixture: str) -> None:
    record = RECORDED[model]
    wanted = expected(record["types"][mixture])
    traits = Traits(record["layers"], record["heads_per_key"], record["experts"])
    assert len(wanted) > 40
    assert assign(mixture.upper(), reversed(wanted), traits) == wanted


def test_other_names_of_the_same_tensors() -> None:
    names = [
        *(f"model.layers.{layer}.self_attn.qkv_proj.weight" for layer in range(8)),
        *(f"model.layers.{layer}.mlp.shared_expert.down_proj.weight" for layer in range(8)),
        "model.layers.7.mlp.gate_up_proj.weight",
        "language_model.lm_head.weight",
        "language_model.model.embed_tokens.weight",
        "vision_tower.blocks.0.fc1.weight",
    ]
    found = assign("q4_k_m", names, Traits(8))
    more = [0, 3, 6, 7]  # the first and last eighth, and every third between
    assert [layer for layer in range(8) if found[names[layer]] == "q6k"] == more
    assert [layer for layer in range(8) if found[names[8 + layer]] == "q6k"] == more
    assert [found[name] for name in names[16:]] == ["q4k", "q6k", "q4k", "q4k"]


def test_unknown_mixtures_are_refused() -> None:
    with pytest.raises(OptionError, match="q4_k_m"):
        assign("q4_k_n", [], Traits(2))
    assert assign("q4_k_m", [], Traits(0)) == {}
