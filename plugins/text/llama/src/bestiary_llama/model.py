"""The Llama network (Touvron et al. 2023), and what Mistral (Jiang et al. 2023) and Ministral 3 add to it.

Mistral sees through a sliding window in the layers that `layer_types` names; Ministral 3 sharpens attention far into
the context.  Both are arguments here.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from bestiary.config import FULL, Config
from bestiary.nn import Attention, CausalLM, Decoder, DecoderLayer, Embedding, GatedMLP, RMSNorm, Rope


def build(config: Config) -> CausalLM:
    c = config.text
    norm = partial(RMSNorm, c.hidden_size, c.rms_norm_eps)
    bias = c.get("attention_bias", False)

    def layer(index: int) -> DecoderLayer:
        sizes = (c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim)
        scale = _query_scale(c.rope())
        attention = Attention(*sizes, bias=bias, out_bias=bias, window=c.window(index), query_scale=scale)
        mlp = GatedMLP(c.hidden_size, c.intermediate_size, c.get("hidden_act", "silu"), c.get("mlp_bias", False))
        return DecoderLayer(attention, mlp, norm)

    decoder = Decoder(
        Embedding(c.vocab_size, c.hidden_size),
        [layer(index) for index in range(c.num_hidden_layers)],
        norm(),
        {FULL: Rope(c.head_dim, c.rope())},
        [FULL] * c.num_hidden_layers,
    )
    return CausalLM(decoder, c.hidden_size, c.vocab_size)


def _query_scale(rope: Mapping[str, Any]) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Ministral 3: queries grow by 1 + beta * ln(1 + floor(position / original context)), as in Llama 4."""
    beta = rope.get("llama_4_scaling_beta")
    if beta is None:
        return None
    span = rope["original_max_position_embeddings"]
    return lambda positions: 1 + beta * torch.log1p((positions // span).float())
