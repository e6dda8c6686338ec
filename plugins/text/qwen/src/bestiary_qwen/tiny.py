"""Small configurations that exercise every argument of the network, for `bestiary.testing`."""

from typing import Any

from bestiary.testing.tiny import decoder, rope


def _window(window: int, first: int) -> dict[str, Any]:
    return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": first}


def _experts(**changes: Any) -> dict[str, Any]:
    return {"moe_intermediate_size": 32, "num_experts": 6, "num_experts_per_tok": 2, **changes}


_LINEAR = rope("linear", rope_theta=1e6, factor=4.0)
_YARN = rope("yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=64)
QWEN2 = (
    decoder("Qwen2ForCausalLM", "qwen2"),
    decoder("Qwen2ForCausalLM", "qwen2", tie_word_embeddings=True, **_window(5, 1)),
    decoder("Qwen2ForCausalLM", "qwen2", num_key_value_heads=4, **_YARN),
)
QWEN3 = (
    decoder("Qwen3ForCausalLM", "qwen3", head_dim=32),
    decoder("Qwen3ForCausalLM", "qwen3", head_dim=16, tie_word_embeddings=True, **_window(5, 2)),
    decoder("Qwen3ForCausalLM", "qwen3", head_dim=24, attention_bias=True, num_key_value_heads=1, **_LINEAR),
)
QWEN2_MOE = (
    decoder("Qwen2MoeForCausalLM", "qwen2_moe", shared_expert_intermediate_size=48, **_experts()),
    decoder(
        "Qwen2MoeForCausalLM",
        "qwen2_moe",
        shared_expert_intermediate_size=40,
        decoder_sparse_step=2,
        **_experts(norm_topk_prob=True),
    ),
    decoder(
        "Qwen2MoeForCausalLM",
        "qwen2_moe",
        shared_expert_intermediate_size=48,
        tie_word_embeddings=True,
        mlp_only_layers=[0],
        qkv_bias=False,
        **_experts(num_experts_per_tok=4),
    ),
)
QWEN3_MOE = (
    decoder("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=32, **_experts(norm_topk_prob=True)),
    decoder("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=16, mlp_only_layers=[1], **_experts(num_experts_per_tok=3)),
    decoder(
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        head_dim=24,
        tie_word_embeddings=True,
        **_window(5, 0),
        **_experts(norm_topk_prob=True),
    ),
)
