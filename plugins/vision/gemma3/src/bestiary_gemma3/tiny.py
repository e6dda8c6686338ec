"""Small configurations that exercise every argument of the network, for `bestiary.testing`."""

from __future__ import annotations

from typing import Any

from bestiary.testing.tiny import decoder


def _tiny(text: dict[str, Any], vision: dict[str, Any], tokens: int, **changes: Any) -> dict[str, Any]:
    named = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "vocab_size": 272, "query_pre_attn_scalar": 16}
    text = {**decoder("", "gemma3_text", head_dim=16), **named, "max_position_embeddings": 2048, **text}
    text.pop("architectures")
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "vision_use_head": False,
            **vision,
        },
        "mm_tokens_per_image": tokens,
        "boi_token_index": 6,
        "eoi_token_index": 7,
        "image_token_index": 8,
        **changes,
    }


GEMMA3 = (
    _tiny(
        {"sliding_window": 11, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        {},
        tokens=4,
    ),
    # A rest of patches at the border, and of pixels; a linear scaling; a window just as long as a picture.
    _tiny(
        {
            "sliding_window": 9,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
        {"image_size": 59, "patch_size": 8, "num_attention_heads": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-3},
        tokens=9,
    ),
    # A window shorter than a picture.
    _tiny({"sliding_window": 5, "attention_bias": True}, {"image_size": 84}, tokens=9),
    # Nothing is averaged, and the tower has a head that is not used.
    _tiny(
        {"num_hidden_layers": 7, "sliding_window": 24, "tie_word_embeddings": False},
        {"vision_use_head": True, "num_hidden_layers": 1},
        tokens=16,
        tie_word_embeddings=False,
    ),
)
