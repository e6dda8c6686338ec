"""The configuration of a file of weights that has none beside it, such as `t5xxl_fp16.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIRST = "encoder.block.0.layer."
_BIAS = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"


def describe(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """A config.json object from the names and shapes of tensors; None where these are not a T5's.

    What no shape shows is as all released models have it: the activation of gated and other models, the largest
    distance and the epsilon of norms.
    """
    gated = f"{_FIRST}1.DenseReluDense.wi_0.weight" in shapes
    needed = (
        "shared.weight",
        f"{_FIRST}0.SelfAttention.q.weight",
        _BIAS.format(0),
        f"{_FIRST}1.DenseReluDense.{'wi_0' if gated else 'wi'}.weight",
    )
    found = [shapes.get(name, ()) for name in needed]
    if any(len(shape) != 2 or 0 in shape for shape in found):
        return None
    (vocabulary, width), (inner, _), (buckets, heads), (hidden, _) = found
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "umt5" if _BIAS.format(1) in shapes else "t5",
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": inner // heads,
        "d_ff": hidden,
        "num_layers": sum(
            name.startswith("encoder.block.") and name.endswith(".layer.0.SelfAttention.q.weight") for name in shapes
        ),
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
    }
