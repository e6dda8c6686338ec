"""Rotary positions: frequencies, angles and rotation against transformers, for every kind of scaling."""

from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama
from transformers.models.phi3 import modeling_phi3
from transformers.models.qwen2_vl import modeling_qwen2_vl
from transformers.models.stablelm import modeling_stablelm

from bestiary.config import normalise
from bestiary.errors import ConfigError
from bestiary.nn import Rope, Rotation

HEAD = 32
SHORT, LONG = [1.0 + 0.02 * pair for pair in range(HEAD // 2)], [1.0 + 1.5 * pair for pair in range(HEAD // 2)]
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
LONGROPE = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG}
CASES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "large base": {"rope_type": "default", "rope_theta": 1e6},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3},
    "llama3 32 times": {"rope_type": "llama3", **LLAMA3, "factor": 32.0},
    "yarn": YARN,
    "yarn, factor one": {**YARN, "factor": 1.0},
    "yarn, betas": {**YARN, "beta_fast": 16.0, "beta_slow": 2.0},
    "yarn, equal betas": {**YARN, "beta_fast": 1.0, "beta_slow": 1.0},
    "yarn, not truncated": {**YARN, "truncate": False},
    "yarn, equal betas, not truncated": {**YARN, "beta_fast": 1.0, "beta_slow": 1.0, "truncate": False},
    "yarn, attention factor": {**YARN, "attention_factor": 1.25},
    "yarn, mscale": {**YARN, "mscale": 0.707, "mscale_all_dim": 1.5},
    "yarn, mscale alone": {**YARN, "mscale": 0.707},
    "yarn, DeepSeek": {**YARN, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1},
    "longrope": {**LONGROPE, "original_max_position_embeddings": 64},
    "longrope, factor": {**LONGROPE, "original_max_position_embeddings": 64, "factor": 4.0},
    "longrope, attention factor": {**LONGROPE, "original_max_position_embeddings": 64, "attention_factor": 1.5},
    "proportional": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
    "proportional, odd": {"rope_type": "proportional", "partial_rotary_factor": 0.3, "factor": 8.0},
}


def config_of(parameters: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": 4 * HEAD,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_theta": 10000.0, **parameters},
        **changes,
    }


def ours_and_theirs(parameters: dict[str, Any]) -> tuple[Rope, transformers.LlamaConfig]:
    raw = config_of(parameters)
    theirs = transformers.LlamaConfig(
        **{key: dict(value) if key == "rope_parameters" else value for key, value in raw.items()}
    )
    return Rope(HEAD, normalise(raw, "here").rope()), theirs


def rotation_of(rope: Rope, *lengths: int) -> Rotation:
    """The rotation of whole sequences, one beside the other."""
    positions = torch.cat([torch.arange(length) for length in lengths])
    return rope(positions, torch.cat([torch.full((length,), length) for length in lengths]))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [48, 64, 65, 512, 513, 2000])
def test_angles_are_those_of_transformers(case: str, length: int) -> None:
    rope, config = ours_and_theirs(CASES[case])
    reference = modeling_llama.LlamaRotaryEmbedding(config)
    cos, sin = reference(torch.empty(0), torch.arange(length)[None])
    rotation = rotation_of(rope, length)
    half = HEAD // 2
    # One part in 2**23 of the largest angle is a unit of its float32 form.
    tolerance = {"rtol": 0.0, "atol": 4 * length / 2**23}
    torch.testing.assert_close(rotation.cos[:, 0, :half], cos[0, :, :half], **tolerance)
    torch.testing.assert_close(rotation.sin[:, 0, half:], sin[0, :, :half], **tolerance)


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case]["rope_type"] in ROPE_INIT_FUNCTIONS])
def test_frequencies_are_those_of_transformers(case: str) -> None:
    rope, config = ours_and_theirs(CASES[case])
    frequencies, magnitude = ROPE_INIT_FUNCTIONS[CASES[case]["rope_type"]](config)
    ours = rope.frequencies[0] if rope.kind == "longrope" else rope.frequencies
    torch.testing.assert_close(ours, frequencies, rtol=1e-6, atol=0)
    assert rope.magnitude == pytest.approx(magnitude, rel=1e-12)


@pytest.mark.parametrize("kind", ["default", "linear", "dynamic", "llama3", "yarn"])
@pytest.mark.parametrize("partial", [0.5, 0.75])
def test_a_part_of_the_head_has_the_frequencies_of_transformers(kind: str, partial: float) -> None:
    raw = config_of({**CASES[kind], "partial_rotary_factor": partial}, model_type="stablelm")
    theirs = transformers.StableLmConfig(**{**raw, "rope_parameters": dict(raw["rope_parameters"])})
    rope = Rope(HEAD, normalise(raw, "here").rope())
    for length in (48, 600):
        cos, sin = modeling_stablelm.StableLmRotaryEmbedding(theirs)(torch.empty(0), torch.arange(length)[None])
        rotation, half = rotation_of(rope, length), int(HEAD * partial) // 2
        torch.testing.assert_close(rotation.cos[:, 0, :half], cos[0, :, :half], rtol=0, atol=1e-3)
        torch.testing.assert_close(rotation.sin[:, 0, half:], sin[0, :, :half], rtol=0, atol=1e-3)


@pytest.mark.parametrize("partial", [1.0, 0.5, 0.75])
@pytest.mark.parametrize("length", [64, 65, 600])
def test_longrope_rotates_as_in_phi3(partial: float, length: int) -> None:
    pairs = int(HEAD * partial) // 2
    raw = config_of(
        {"rope_type": "longrope", "short_factor": SHORT[:pairs], "long_factor": LONG[:pairs]},
        model_type="phi3",
        pad_token_id=0,
        partial_rotary_factor=partial,
        original_max_position_embeddings=64,
    )
    theirs = transformers.Phi3Config(**{**raw, "rope_parameters": dict(raw["rope_parameters"])})
    x = torch.randn(length, 4, HEAD, generator=torch.Generator().manual_seed(0))
    cos, sin = modeling_phi3.Phi3RotaryEmbedding(theirs)(x, torch.arange(length)[None])
    expected, _ = modeling_phi3.apply_rotary_pos_emb(x[None].transpose(1, 2), x[None].transpose(1, 2), cos, sin)
    ours = rotation_of(Rope(HEAD, normalise(raw, "here").rope()), length).apply(x)
    torch.testing.assert_close(ours, expected[0].transpose(0, 1), rtol=0, atol=1e-3)
    assert torch.equal(ours[..., 2 * pairs :], x[..., 2 * pairs :])
    assert not torch.allclose(ours[1:, :, : 2 * pairs], x[1:, :, : 2 * pairs])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotation_is_that_of_llama_to_the_last_bit(dtype: torch.dtype) -> None:
    rope, config = ours_and_theirs(CASES["default"])
    x = torch.randn(40, 4, HEAD, generator=torch.Generator().manual_seed(0)).to(dtype)
    cos, sin = modeling_llama.LlamaRotaryEmbedding(config)(x, torch.arange(40)[None])
    expected, _ = modeling_llama.apply_rotary_pos_emb(x[None].transpose(1, 2), x[None].transpose(1, 2), cos, sin)
    assert torch.equal(rotation_of(rope, 40).to(dtype).apply(x), expected[0].transpose(0, 1))


@pytest.mark.parametrize("partial", [1.0, 0.5])
def test_interleaved_rotation_is_that_of_glm(partial: float) -> None:
    parameters = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": partial}
    config = transformers.GlmConfig(head_dim=HEAD, rope_parameters=dict(parameters), pad_token_id=0)
    x = torch.randn(40, 4, HEAD, generator=torch.Generator().manual_seed(0))
    cos, sin = modeling_glm.GlmRotaryEmbedding(config)(x, torch.arange(40)[None])
    expected, _ = modeling_glm.apply_rotary_pos_emb(x[None].transpose(1, 2), x[None].transpose(1, 2), cos, sin)
    ours = rotation_of(Rope(HEAD, parameters, interleaved=True), 40).apply(x)
    torch.testing.assert_close(ours, expected[0].transpose(0, 1), rtol=0, atol=1e-5)


def test_interleaved_scores_are_those_of_deepseek() -> None:
    """DeepSeek's transformers code also reorders the dimensions; the products of q and k do not see that."""
    parameters = {"rope_type": "default", "rope_theta": 10000.0}
    random = torch.Generator().manual_seed(0)
    q, k = torch.randn(40, 4, HEAD, generator=random), torch.randn(40, 4, HEAD, generator=random)
    angles = torch.arange(40.0)[:, None] / 10000.0 ** (torch.arange(0, HEAD, 2) / HEAD)
    cos, sin = torch.cat((angles, angles), -1).cos()[None], torch.cat((angles, angles), -1).sin()[None]
    expected_q, expected_k = modeling_deepseek_v3.apply_rotary_pos_emb_interleave(
        q[None].transpose(1, 2), k[None].transpose(1, 2), cos, sin
    )
    rotation = rotation_of(Rope(HEAD, parameters, interleaved=True), 40)
    ours = rotation.apply(q).transpose(0, 1) @ rotation.apply(k).permute(1, 2, 0)
    torch.testing.assert_close(ours, (expected_q @ expected_k.transpose(2, 3))[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_depend_on_the_distance_alone(interleaved: bool) -> None:
    rope = Rope(HEAD, {"rope_theta": 10000.0}, interleaved=interleaved)
    q, k = torch.randn(2, 1, 1, HEAD, generator=torch.Generator().manual_seed(0)).double()

    def score(first: int, second: int) -> float:
        at = [rope(torch.tensor([place]), torch.tensor([place + 1])) for place in (first, second)]
        return float((at[0].apply(q) * at[1].apply(k)).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert abs(score(9, 4) - score(9, 5)) > 1e-2


@pytest.mark.parametrize("case", ["default", "dynamic", "longrope", "yarn"])
def test_each_sequence_of_a_batch_gets_what_it_gets_alone(case: str) -> None:
    rope, _ = ours_and_theirs(CASES[case])
    lengths = (600, 3, 64, 65, 512, 513)
    together = rotation_of(rope, *lengths)
    for length, cos, sin in zip(lengths, together.cos.split(lengths), together.sin.split(lengths), strict=True):
        alone = rotation_of(rope, length)
        assert torch.equal(cos, alone.cos) and torch.equal(sin, alone.sin)


def test_short_and_long_factors_change_at_the_original_length() -> None:
    rope, _ = ours_and_theirs(CASES["longrope"])
    at = [rope(torch.tensor([5]), torch.tensor([length])).cos for length in (6, 64, 65, 500)]
    assert torch.equal(at[0], at[1]) and torch.equal(at[2], at[3]) and not torch.equal(at[1], at[2])


def test_dynamic_scaling_begins_after_the_trained_length() -> None:
    rope, _ = ours_and_theirs(CASES["dynamic"])
    at = [rope(torch.tensor([5]), torch.tensor([length])).cos for length in (6, 512, 513, 514)]
    assert torch.equal(at[0], at[1])
    assert not torch.equal(at[1], at[2]) and not torch.equal(at[2], at[3])


def test_frequencies_are_made_on_the_meta_device_too() -> None:
    with torch.device("meta"):
        built = {case: ours_and_theirs(CASES[case])[0] for case in CASES}
    for case, rope in built.items():
        assert torch.equal(rope.frequencies, ours_and_theirs(CASES[case])[0].frequencies), case
    assert "frequencies" not in built["default"].state_dict()


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "spiral"},
        {"rope_type": "linear"},
        {"rope_type": "dynamic"},
        {"rope_type": "dynamic", "factor": 0.5},
        {"rope_type": "llama3", "factor": 8.0},
        {"rope_type": "llama3", **LLAMA3, "high_freq_factor": 1.0},
        {"rope_type": "longrope", "short_factor": SHORT},
        {**LONGROPE, "short_factor": "abc"},
        {**LONGROPE, "short_factor": ["x"] * (HEAD // 2)},
        {**LONGROPE, "short_factor": SHORT[1:]},
        {**LONGROPE, "short_factor": [1.0], "long_factor": [2.0]},
        {**LONGROPE, "short_factor": 1.0, "long_factor": 2.0},
    ],
    ids=lambda parameters: str(parameters)[:70],
)
def test_impossible_parameters_are_refused(parameters: dict[str, Any]) -> None:
    rope = normalise(config_of(parameters), "here").rope()
    with pytest.raises(ConfigError, match=parameters["rope_type"]):
        Rope(HEAD, rope)


@pytest.mark.parametrize("sections", [[4, 6, 6], [16, 0, 0], [2, 7, 7]])
def test_time_row_and_column_turn_their_own_pairs(sections: list[int]) -> None:
    """M-RoPE, as Qwen2-VL has it; of three equal positions it is the plain rotation."""
    parameters = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    config = transformers.Qwen2VLTextConfig(hidden_size=4 * HEAD, num_attention_heads=4, rope_parameters=parameters)
    positions = torch.randint(0, 900, (3, 19))
    x, lengths = torch.randn(19, 4, HEAD), torch.full((19,), 1000)
    cos, sin = modeling_qwen2_vl.Qwen2VLRotaryEmbedding(config)(x, positions[:, None])
    due, _ = modeling_qwen2_vl.apply_rotary_pos_emb(x.transpose(0, 1)[None], x.transpose(0, 1)[None], cos, sin)
    rope = Rope(HEAD, parameters)
    torch.testing.assert_close(rope(positions, lengths).apply(x), due[0].transpose(0, 1), rtol=0, atol=2e-5)
    same = rope(positions[:1].expand(3, -1), lengths).apply(x)
    assert torch.equal(same, rope(positions[0], lengths).apply(x))


def test_sections_must_fill_a_head() -> None:
    with pytest.raises(ConfigError, match="mrope_section"):
        Rope(HEAD, {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 4, 4]})
