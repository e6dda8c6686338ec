"""Small configurations that exercise every argument of the network, for `bestiary.testing`."""

from __future__ import annotations

from typing import Any

from bestiary.testing.tiny import decoder, rope

VOCABULARY = 320
IMAGE_TOKEN = 300
"""As every tokenizer of a tiny checkpoint has it, above the bytes and the other special tokens."""


def _seeing(name: str, model_type: str, text: dict[str, Any], scale: int, **vision: Any) -> dict[str, Any]:
    llama = decoder("LlamaForCausalLM", "llama", vocab_size=VOCABULARY, max_position_embeddings=2048, **text)
    tower = {"model_type": f"{model_type}_vision", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return {
        "architectures": [name],
        "model_type": model_type,
        "text_config": llama,
        "vision_config": {**tower, "num_attention_heads": 2, "image_size": 16, "patch_size": 4, **vision},
        "scale_factor": scale,
        "image_token_id": IMAGE_TOKEN,
        "tie_word_embeddings": llama.get("tie_word_embeddings", False),
    }


def _configs(name: str, model_type: str) -> tuple[dict[str, Any], ...]:
    """By what is special: nothing; a tower for larger pictures than the tiles; and every option of the text model."""
    stretched = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
    stretched["rope_parameters"]["original_max_position_embeddings"] = 64
    return (
        _seeing(name, model_type, {}, 2),
        _seeing(name, model_type, {"tie_word_embeddings": True}, 4, image_size=27, patch_size=2, hidden_act="gelu"),
        _seeing(
            name,
            model_type,
            {"attention_bias": True, "mlp_bias": True, "head_dim": 24, "rms_norm_eps": 1e-4, **stretched},
            1,
            image_size=64,
            patch_size=8,
            num_hidden_layers=3,
            num_attention_heads=4,
            layer_norm_eps=1e-3,
        ),
    )


IDEFICS3 = _configs("Idefics3ForConditionalGeneration", "idefics3")
SMOLVLM = _configs("SmolVLMForConditionalGeneration", "smolvlm")
