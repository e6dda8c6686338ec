"""The sizes that tiny configurations of text models share."""

from typing import Any


def decoder(name: str, model_type: str, **changes: Any) -> dict[str, Any]:
    """A config.json object of a decoder with three small layers and grouped heads, with `changes`."""
    return {
        "architectures": [name],
        "model_type": model_type,
        "vocab_size": 131,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **changes,
    }


def rope(kind: str, **changes: Any) -> dict[str, Any]:
    """The configuration key of one kind of rotary scaling."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **changes}}
