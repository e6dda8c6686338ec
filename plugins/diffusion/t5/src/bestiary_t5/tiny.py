"""Small configurations that exercise every argument of the network."""

from typing import Any


def _t5(name: str = "T5EncoderModel", model_type: str = "t5", **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [name],
        "model_type": model_type,
        "vocab_size": 99,
        "d_model": 40,
        "d_kv": 12,
        "d_ff": 56,
        "num_layers": 3,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        **changes,
    }


T5 = (
    _t5(),
    # As in 2019; distances reach the last bucket within a short text.
    _t5(feed_forward_proj="relu", relative_attention_num_buckets=14, relative_attention_max_distance=17),
    _t5(feed_forward_proj="gated-silu", d_kv=16, num_heads=2, layer_norm_epsilon=1e-3),
    _t5("MT5EncoderModel", "mt5"),
    _t5("UMT5EncoderModel", "umt5", num_heads=3),
)
