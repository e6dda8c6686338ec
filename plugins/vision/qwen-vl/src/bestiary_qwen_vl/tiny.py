"""Small configurations that exercise every argument of the networks, for `bestiary.testing`."""

from typing import Any

from bestiary.testing.tiny import decoder

_TOKENS = {"vision_start_token_id": 260, "vision_end_token_id": 261, "image_token_id": 262, "video_token_id": 263}
"""Those of a tokenizer of 256 bytes, with four tokens before them."""


def _tiny(name: str, model_type: str, vision: dict[str, Any], sections: list[int], **text: Any) -> dict[str, Any]:
    made = decoder(name, f"{model_type}_text", vocab_size=270, max_position_embeddings=2048, **text)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections, **made.pop("rope_parameters", {})}
    del made["architectures"]
    return {
        "architectures": [name],
        "model_type": model_type,
        "text_config": {**made, "rope_parameters": rope},
        "vision_config": {"depth": 3, "num_heads": 2, **vision},
        "tie_word_embeddings": made.get("tie_word_embeddings", False),
        **_TOKENS,
    }


def _qwen2(vision: dict[str, Any], sections: list[int], **text: Any) -> dict[str, Any]:
    stated = {"embed_dim": 32, "hidden_size": 64, **vision}
    return _tiny("Qwen2VLForConditionalGeneration", "qwen2_vl", stated, sections, **text)


def _qwen2_5(vision: dict[str, Any], sections: list[int], **text: Any) -> dict[str, Any]:
    stated = {"hidden_size": 32, "intermediate_size": 44, "out_hidden_size": 64, **vision}
    return _tiny("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", stated, sections, **text)


_YARN = {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}}
QWEN2_VL = (
    _qwen2({"patch_size": 4}, [2, 3, 3]),
    _qwen2(
        {"mlp_ratio": 2, "num_heads": 4, "hidden_act": "gelu", "temporal_patch_size": 3, "patch_size": 5},
        [4, 2, 2],
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=9,
        max_window_layers=1,
    ),
    _qwen2({"spatial_merge_size": 3, "patch_size": 4, "embed_dim": 48}, [2, 2, 4], num_key_value_heads=4, **_YARN),
)
QWEN2_5_VL = (
    _qwen2_5({"patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]}, [2, 3, 3]),
    _qwen2_5(
        {"patch_size": 4, "window_size": 24, "fullatt_block_indexes": [0, 2], "num_heads": 4, "tokens_per_second": 2},
        [4, 2, 2],
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=9,
        max_window_layers=1,
    ),
    _qwen2_5(
        {"patch_size": 5, "window_size": 30, "spatial_merge_size": 3, "fullatt_block_indexes": [], "depth": 2},
        [2, 2, 4],
        num_key_value_heads=4,
        **_YARN,
    ),
)
