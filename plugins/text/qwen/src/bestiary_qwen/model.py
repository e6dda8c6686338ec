"""The Qwen networks (Qwen2 report 2024, Qwen3 report 2025).

Qwen2 biases q, k and v; Qwen3 norms q and k instead.  In the mixtures some layers' feed-forward block is a set of
experts, which Qwen2 accompanies with a gated expert for every token.
"""

from functools import partial

from torch import nn

from bestiary.config import FULL, Config
from bestiary.nn import (
    Attention,
    CausalLM,
    Decoder,
    DecoderLayer,
    Embedding,
    Experts,
    GatedMLP,
    Linear,
    MixtureOfExperts,
    RMSNorm,
    Rope,
    Router,
)


def build(config: Config) -> CausalLM:
    c = config.text
    norm = partial(RMSNorm, eps=c.rms_norm_eps)
    qwen3 = c.model_type.startswith("qwen3")

    def layer(index: int) -> DecoderLayer:
        attention = Attention(
            c.hidden_size,
            c.num_attention_heads,
            c.num_key_value_heads,
            c.head_dim,
            bias=c.attention_bias if "attention_bias" in c else c.get("qkv_bias", False),
            out_bias=c.get("attention_bias", False),
            qk_norm=norm if qwen3 else None,
            window=c.window(index),
        )
        mlp = _experts(c) if _is_sparse(c, index) else GatedMLP(c.hidden_size, c.intermediate_size, c.hidden_act)
        return DecoderLayer(attention, mlp, partial(norm, c.hidden_size))

    decoder = Decoder(
        Embedding(c.vocab_size, c.hidden_size),
        [layer(index) for index in range(c.num_hidden_layers)],
        norm(c.hidden_size),
        {FULL: Rope(c.head_dim, c.rope())},
        [FULL] * c.num_hidden_layers,
    )
    return CausalLM(decoder, c.hidden_size, c.vocab_size)


def _is_sparse(c: Config, index: int) -> bool:
    return (
        c.get("num_experts", 0) > 0
        and index not in (c.get("mlp_only_layers") or ())
        and (index + 1) % c.get("decoder_sparse_step", 1) == 0
    )


def _experts(c: Config) -> nn.Module:
    router = Router(c.hidden_size, c.num_experts, c.num_experts_per_tok, normalise=c.get("norm_topk_prob", False))
    experts = Experts(c.hidden_size, c.moe_intermediate_size, c.num_experts, c.hidden_act)
    shared = c.get("shared_expert_intermediate_size")
    return MixtureOfExperts(
        router,
        experts,
        shared=GatedMLP(c.hidden_size, shared, c.hidden_act) if shared else None,
        shared_gate=Linear(c.hidden_size, 1) if shared else None,
    )
