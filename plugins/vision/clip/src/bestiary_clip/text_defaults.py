"""What CLIPTextConfig takes for granted, and configurations therefore may leave out."""

from types import MappingProxyType
from typing import Any

TEXT_DEFAULTS = MappingProxyType[str, Any](
    {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": 512,
        "eos_token_id": 49407,
    }
)
