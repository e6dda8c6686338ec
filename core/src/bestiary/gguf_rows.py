"""Rules for GGUF files that several architectures need (see `bestiary.Gguf`)."""

from typing import Any

from bestiary.weights import rename, rows


def _halves(weight: Any, heads: int) -> Any:
    """llama.cpp stores the rows of a head as the pairs that are rotated, (0, 0'), (1, 1') ...: the halves come back."""
    return weight.reshape(heads, -1, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


ROTARY_PAIRS = (
    rows("**.q_proj.*", lambda weight, config: _halves(weight, config.num_attention_heads)),
    rows("**.k_proj.*", lambda weight, config: _halves(weight, config.num_key_value_heads)),
)
"""Of the Llamas and Mistrals; Qwen, Gemma and Phi are stored as they are."""

_LAYER = {
    "ln1": "layer_norm1",
    "ln2": "layer_norm2",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
VISION_TOWER = (
    rename("v.patch_embd.*", "media.tower.embeddings.patch_embedding.*"),
    rename("v.position_embd.weight", "media.tower.embeddings.position_embedding.weight"),
    rename("v.class_embd", "media.tower.embeddings.class_embedding"),
    rename("v.pre_ln.*", "media.tower.pre_layrnorm.*"),
    rename("v.post_ln.*", "media.tower.post_layernorm.*"),
    *(rename(f"v.blk.*.{stored}.*", f"media.tower.encoder.layers.*.{name}.*") for stored, name in _LAYER.items()),
)
"""Of the towers of CLIP and SigLIP, as the companion (mmproj) of a text model's file has them."""
