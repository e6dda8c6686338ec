"""Logits with an adapter equal those of PEFT around transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bestiary.testing.conformance import assert_close

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
RANKS = {r"model\.layers\.[01]\.self_attn\.(q|k)_proj": 2, "layers.2.mlp.up_proj": 7}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": LINEAR},
    "rslora": {"target_modules": LINEAR, "use_rslora": True},
    "dora": {"target_modules": LINEAR, "use_dora": True},
    "dora and rslora": {"target_modules": LINEAR, "use_dora": True, "use_rslora": True, "r": 8},
    "patterns": {
        "target_modules": LINEAR,
        "rank_pattern": RANKS,
        "alpha_pattern": {"^model.layers.1.self_attn.q_proj": 20, "o_proj": 0.5, ".*q_proj": 3},
    },
    "some layers": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 2]},
    "by expression": {"target_modules": r".*\.1\..*_proj"},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "dora on the head": {"target_modules": ["lm_head"], "use_dora": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", ["llama", "gemma", "tied"])
def test_dense(name: str, options: dict[str, Any], case_of: Callable, train: Callable, leased: Callable) -> None:
    check(case_of(name), train(case_of(name), **options), leased)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": [], "target_parameters": EXPERTS},
        {"target_modules": ATTENTION, "target_parameters": EXPERTS, "rank_pattern": {"experts.down_proj": 2}},
        {"target_modules": ATTENTION, "target_parameters": EXPERTS[:1], "use_rslora": True},
        {"target_modules": [], "target_parameters": EXPERTS[1:]},
        {"target_modules": [], "target_parameters": ["gate_up_proj", "down_proj"]},
    ],
    ids=["both", "patterns", "gate and up", "down", "bare names"],
)
@pytest.mark.parametrize("name", ["qwen", "square"])
def test_experts(name: str, options: dict[str, Any], case_of: Callable, train: Callable, leased: Callable) -> None:
    check(case_of(name), train(case_of(name), size=0.3, **options), leased)


def test_shared_expert(case_of: Callable, train: Callable, leased: Callable) -> None:
    targets = ["shared_expert.gate_proj", "shared_expert.down_proj", "shared_expert_gate"]
    check(case_of("qwen"), train(case_of("qwen"), size=0.3, target_modules=targets), leased)


def check(case: Any, trained: Any, leased: Callable) -> None:
    adapters, generations = leased(case, {"it": trained.read()})
    tokens = case.prompt(29)
    ours, theirs = case.logits([tokens], adapters, generations)[0], trained.logits(tokens)
    assert_close(ours, theirs)
    base = case.reference.logits(tokens)
    assert float((theirs - base).abs().max()) > 0.05 * float(base.abs().max()), "the adapter changes too little to tell"
    assert torch.equal(case.logits([tokens], adapters, [None])[0], case.logits([tokens])[0])
