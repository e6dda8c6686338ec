"""Small configurations that exercise every argument of the network, for `bestiary.testing`."""

from typing import Any


def _tiny(name: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [name],
        "model_type": model_type,
        "vocab_size": 131,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **changes,
    }


def _window(window: int, first: int) -> dict[str, Any]:
    return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": first}


def _experts(**changes: Any) -> dict[str, Any]:
    return {"moe_intermediate_size": 32, "num_experts": 6, "num_experts_per_tok": 2, **changes}


_LINEAR = {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0}}
_YARN = {
    "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 64}
}
QWEN2 = (
    _tiny("Qwen2ForCausalLM", "qwen2"),
    _tiny("Qwen2ForCausalLM", "qwen2", tie_word_embeddings=True, **_window(5, 1)),
    _tiny("Qwen2ForCausalLM", "qwen2", num_key_value_heads=4, **_YARN),
)
QWEN3 = (
    _tiny("Qwen3ForCausalLM", "qwen3", head_dim=32),
    _tiny("Qwen3ForCausalLM", "qwen3", head_dim=16, tie_word_embeddings=True, **_window(5, 2)),
    _tiny("Qwen3ForCausalLM", "qwen3", head_dim=24, attention_bias=True, num_key_value_heads=1, **_LINEAR),
)
QWEN2_MOE = (
    _tiny("Qwen2MoeForCausalLM", "qwen2_moe", shared_expert_intermediate_size=48, **_experts()),
    _tiny(
        "Qwen2MoeForCausalLM",
        "qwen2_moe",
        shared_expert_intermediate_size=40,
        decoder_sparse_step=2,
        **_experts(norm_topk_prob=True),
    ),
    _tiny(
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
    _tiny("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=32, **_experts(norm_topk_prob=True)),
    _tiny("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=16, mlp_only_layers=[1], **_experts(num_experts_per_tok=3)),
    _tiny(
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        head_dim=24,
        tie_word_embeddings=True,
        **_window(5, 0),
        **_experts(norm_topk_prob=True),
    ),
)
