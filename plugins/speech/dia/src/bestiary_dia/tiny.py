"""Small configurations that exercise every argument of the network, for tests."""

from typing import Any

_HALF = {"num_hidden_layers": 2, "head_dim": 16, "norm_eps": 1e-5, "hidden_act": "silu"}


def _dia(encoder: dict[str, Any], decoder: dict[str, Any], delays: list[int]) -> dict[str, Any]:
    return {
        "architectures": ["DiaForConditionalGeneration"],
        "model_type": "dia",
        "delay_pattern": delays,
        "encoder_config": {
            **_HALF,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "intermediate_size": 48,
            "vocab_size": 256,
            "max_position_embeddings": 256,
            **encoder,
        },
        "decoder_config": {
            **_HALF,
            "hidden_size": 48,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 64,
            "cross_num_attention_heads": 4,
            "cross_num_key_value_heads": 4,
            "cross_head_dim": 16,
            "cross_hidden_size": encoder.get("hidden_size", 32),
            "vocab_size": 68,
            "num_channels": len(delays),
            "eos_token_id": 64,
            "pad_token_id": 65,
            "bos_token_id": 66,
            "max_position_embeddings": 512,
            **decoder,
        },
    }


DIA = (
    _dia({}, {}, [0, 8, 9, 10, 11, 12, 13, 14, 15]),
    _dia(
        {"hidden_size": 24, "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 5e3}},
        {"cross_num_key_value_heads": 2, "cross_head_dim": 8, "num_hidden_layers": 3, "norm_eps": 1e-3},
        [0, 2, 1],
    ),
)
