"""Rules for GGUF files that several architectures need (see `bestiary.Gguf`)."""

from typing import Any

from bestiary.weights import rows


def _halves(weight: Any, heads: int) -> Any:
    """llama.cpp stores the rows of a head as the pairs that are rotated, (0, 0'), (1, 1') ...: the halves come back."""
    return weight.reshape(heads, -1, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


ROTARY_PAIRS = (
    rows("**.q_proj.*", lambda weight, config: _halves(weight, config.num_attention_heads)),
    rows("**.k_proj.*", lambda weight, config: _halves(weight, config.num_key_value_heads)),
)
"""Of the Llamas and Mistrals; Qwen, Gemma and Phi are stored as they are."""
