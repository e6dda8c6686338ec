"""Mixtures of experts against the blocks of transformers, with the same weights."""

from typing import Any

import pytest
import torch
import transformers
from transformers.models.deepseek_v2 import modeling_deepseek_v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.qwen2_moe import modeling_qwen2_moe
from transformers.models.qwen3_moe import modeling_qwen3_moe

from bestiary.nn import Experts, GatedMLP, Linear, MixtureOfExperts, Router

DIM, HIDDEN, SHARED, COUNT = 16, 12, 20, 8
SIZES: dict[str, Any] = {
    "hidden_size": DIM,
    "moe_intermediate_size": HIDDEN,
    "num_experts_per_tok": 3,
    "num_attention_heads": 4,
}
TOLERANCE = 1e-6


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.copy_(torch.randn(tensor.shape, generator=random) / 2)
    return module.eval()


def tokens(count: int = 40) -> torch.Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(1))


def take_experts(ours: Experts, theirs: torch.nn.Module) -> None:
    gate, up = theirs.gate_up_proj.detach().chunk(2, dim=1)
    ours.load_state_dict({"gate_proj": gate, "up_proj": up, "down_proj": theirs.down_proj.detach()})


def take_mlp(ours: GatedMLP, theirs: torch.nn.Module) -> None:
    ours.load_state_dict(theirs.state_dict())


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert float((ours - theirs).abs().max()) <= TOLERANCE * float(theirs.abs().max())


def by_expert(weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """[T, E]: the weight of each expert, for choices may come in any order."""
    assert all(len(set(row)) == len(row) for row in indices.tolist())
    return torch.zeros(len(weights), COUNT).scatter(-1, indices, weights)


# Whole blocks


@pytest.mark.parametrize("normalise", [False, True])
@torch.no_grad()
def test_qwen3(normalise: bool) -> None:
    config = transformers.Qwen3MoeConfig(**SIZES, num_experts=COUNT, norm_topk_prob=normalise)
    theirs = randomise(modeling_qwen3_moe.Qwen3MoeSparseMoeBlock(config))
    ours = MixtureOfExperts(Router(DIM, COUNT, 3, normalise=normalise), Experts(DIM, HIDDEN, COUNT))
    ours.gate.load_state_dict(theirs.gate.state_dict())
    take_experts(ours.experts, theirs.experts)
    assert_close(ours(tokens()), theirs(tokens()[None])[0])


@pytest.mark.parametrize("normalise", [False, True])
@torch.no_grad()
def test_qwen2_with_its_gated_expert_for_every_token(normalise: bool) -> None:
    config = transformers.Qwen2MoeConfig(
        **SIZES, num_experts=COUNT, norm_topk_prob=normalise, shared_expert_intermediate_size=SHARED
    )
    theirs = randomise(modeling_qwen2_moe.Qwen2MoeSparseMoeBlock(config))
    ours = MixtureOfExperts(
        Router(DIM, COUNT, 3, normalise=normalise),
        Experts(DIM, HIDDEN, COUNT),
        shared=GatedMLP(DIM, SHARED),
        shared_gate=Linear(DIM, 1),
    )
    ours.gate.load_state_dict(theirs.gate.state_dict())
    take_experts(ours.experts, theirs.experts)
    take_mlp(ours.shared_expert, theirs.shared_expert)
    ours.shared_expert_gate.load_state_dict(theirs.shared_expert_gate.state_dict())
    expected = theirs(tokens()[None])
    assert_close(ours(tokens()), (expected[0] if isinstance(expected, tuple) else expected)[0])


def deepseek_v3(groups: int, top_groups: int, normalise: bool) -> tuple[MixtureOfExperts, torch.nn.Module]:
    config = transformers.DeepseekV3Config(
        **SIZES,
        n_routed_experts=COUNT,
        n_shared_experts=2,
        n_group=groups,
        topk_group=top_groups,
        norm_topk_prob=normalise,
        routed_scaling_factor=2.5,
    )
    theirs = randomise(modeling_deepseek_v3.DeepseekV3MoE(config))
    router = Router(
        DIM,
        COUNT,
        3,
        score="sigmoid",
        normalise=normalise,
        scale=2.5,
        groups=groups,
        top_groups=top_groups,
        correction=True,
    )
    ours = MixtureOfExperts(router, Experts(DIM, HIDDEN, COUNT), shared=GatedMLP(DIM, 2 * HIDDEN))
    ours.gate.load_state_dict(theirs.gate.state_dict())
    take_experts(ours.experts, theirs.experts)
    take_mlp(ours.shared_expert, theirs.shared_experts)
    return ours, theirs


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("groups, top_groups", [(1, 1), (2, 1), (4, 2), (4, 4)])
@torch.no_grad()
def test_deepseek_v3(groups: int, top_groups: int, normalise: bool) -> None:
    ours, theirs = deepseek_v3(groups, top_groups, normalise)
    assert_close(ours(tokens()), theirs(tokens()[None])[0])


@pytest.mark.parametrize("method, groups, top_groups", [("greedy", 1, 1), ("group_limited_greedy", 4, 2)])
@torch.no_grad()
def test_deepseek_v2(method: str, groups: int, top_groups: int) -> None:
    config = transformers.DeepseekV2Config(
        **SIZES,
        n_routed_experts=COUNT,
        n_shared_experts=1,
        topk_method=method,
        n_group=groups,
        topk_group=top_groups,
        routed_scaling_factor=1.5,
    )
    theirs = randomise(modeling_deepseek_v2.DeepseekV2Moe(config))
    router = Router(DIM, COUNT, 3, normalise=False, scale=1.5, groups=groups, top_groups=top_groups)
    ours = MixtureOfExperts(router, Experts(DIM, HIDDEN, COUNT), shared=GatedMLP(DIM, HIDDEN))
    ours.gate.load_state_dict(theirs.gate.state_dict())
    take_experts(ours.experts, theirs.experts)
    take_mlp(ours.shared_expert, theirs.shared_experts)
    assert_close(ours(tokens()), theirs(tokens()[None])[0])


# The router


@torch.no_grad()
def test_the_correction_changes_the_choice_and_not_the_weights() -> None:
    router = Router(DIM, COUNT, 3, score="sigmoid", normalise=False, correction=True)
    randomise(router)
    router.e_score_correction_bias.zero_()
    router.e_score_correction_bias[5] = 100.0
    weights, indices = router(tokens())
    assert torch.all((indices == 5).any(-1))
    scores = (tokens() @ router.weight.T).sigmoid()
    torch.testing.assert_close(weights, scores.gather(-1, indices))


@torch.no_grad()
def test_a_choice_stays_in_the_best_groups() -> None:
    ours, _ = deepseek_v3(2, 1, True)
    _, indices = ours.gate(tokens())
    groups = indices // (COUNT // 2)
    assert torch.all(groups == groups[:, :1])
    assert len(groups.unique()) == 2


@torch.no_grad()
def test_bfloat16_tokens_are_scored_as_in_transformers() -> None:
    config = transformers.Qwen3MoeConfig(**SIZES, num_experts=COUNT, norm_topk_prob=True)
    theirs = randomise(modeling_qwen3_moe.Qwen3MoeTopKRouter(config)).bfloat16()
    ours = Router(DIM, COUNT, 3).bfloat16()
    ours.load_state_dict(theirs.state_dict())
    _, expected_weights, expected_indices = theirs(tokens().bfloat16())
    weights, indices = ours(tokens().bfloat16())
    expected = by_expert(expected_weights.float(), expected_indices)
    assert torch.equal(by_expert(weights, indices).bfloat16().float(), expected)


# The experts


@torch.no_grad()
def test_experts_without_tokens_cost_nothing_and_change_nothing() -> None:
    experts = randomise(Experts(DIM, HIDDEN, COUNT))
    x, weights = tokens(5), torch.full((5, 2), 0.5)
    indices = torch.tensor([[6, 1]] * 5)
    before = experts(x, weights, indices)
    for expert in set(range(COUNT)) - {1, 6}:
        for tensor in experts.parameters():
            tensor[expert] = float("nan")
    assert torch.equal(experts(x, weights, indices), before)
    expected = sum(
        0.5
        * (torch.nn.functional.silu(x @ experts.gate_proj[expert].T) * (x @ experts.up_proj[expert].T))
        @ experts.down_proj[expert].T
        for expert in (1, 6)
    )
    assert_close(before, expected)


@torch.no_grad()
def test_no_tokens_at_all() -> None:
    ours, _ = deepseek_v3(2, 1, True)
    assert ours(tokens(0)).shape == (0, DIM)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_sum_of_a_token_does_not_depend_on_its_batch(dtype: torch.dtype) -> None:
    """Each expert adds exact numbers here, so any other order of the sum would show in its last bit."""
    experts = Experts(DIM, DIM, COUNT, act="relu")
    experts.gate_proj.data = torch.eye(DIM).repeat(COUNT, 1, 1)
    experts.up_proj.data = torch.eye(DIM).repeat(COUNT, 1, 1)
    experts.down_proj.data = torch.eye(DIM) * (1.0 + torch.arange(COUNT) / 7)[:, None, None]
    experts = experts.to(dtype)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(40, DIM, generator=random).to(dtype)
    indices = torch.stack([torch.randperm(COUNT, generator=random)[:3] for _ in x])
    weights = torch.rand(40, 3, generator=random)
    together = experts(x, weights, indices)
    for token in range(40):
        alone = experts(x[token : token + 1], weights[token : token + 1], indices[token : token + 1])
        assert torch.equal(alone[0], together[token])


@torch.no_grad()
def test_a_token_gets_what_it_gets_alone() -> None:
    ours, _ = deepseek_v3(4, 2, True)
    together = ours(tokens())
    for token in range(40):
        assert_close(ours(tokens()[token : token + 1])[0], together[token])
