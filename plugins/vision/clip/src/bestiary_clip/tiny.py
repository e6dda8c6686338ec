"""Small configurations that exercise every argument of the text encoder, for `bestiary.testing`."""

from typing import Any


def _text(**changes: Any) -> dict[str, Any]:
    return {
        "model_type": "clip_text_model",
        "vocab_size": 99,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 24,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": 20,
        "bos_token_id": 97,
        "eos_token_id": 98,
        "pad_token_id": 98,
        **changes,
    }


def _named(name: str, **changes: Any) -> dict[str, Any]:
    return {"architectures": [name], **_text(**changes)}


def _both(**changes: Any) -> dict[str, Any]:
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 15,
        "patch_size": 5,
    }
    text = _text(projection_dim=512)  # as configurations have it that state it once, for both halves
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "text_config": {**text, **changes},
        "vision_config": vision,
        "projection_dim": 28,
    }


PLAIN = (
    _named("CLIPTextModel"),
    _named("CLIPTextModel", eos_token_id=2, bos_token_id=0, pad_token_id=1),
    _named("CLIPTextModel", hidden_act="gelu", layer_norm_eps=0.1, num_attention_heads=2, num_hidden_layers=1),
)
PROJECTED = (
    _named("CLIPTextModelWithProjection"),
    _named("CLIPTextModelWithProjection", eos_token_id=2, hidden_act="gelu", projection_dim=32),
    _named("CLIPTextModelWithProjection", max_position_embeddings=13, hidden_size=48),
)
HALF = (_both(), _both(eos_token_id=2), _both(hidden_act="gelu"))
