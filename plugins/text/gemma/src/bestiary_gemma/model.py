"""The Gemma networks (Gemma reports 2024, 2024 and 2025).

All scale the embedding by the root of its width, and store norm weights less one.  Gemma 2 norms each branch twice,
caps scores and logits, and lets every other layer see a window only.  Gemma 3 norms q and k in place of the caps, and
gives its local layers a rotary base of their own.
"""

from functools import partial

from bestiary.config import FULL, SLIDING, Config
from bestiary.nn import Attention, CausalLM, Decoder, DecoderLayer, Embedding, GatedMLP, RMSNorm, Rope


def gemma(config: Config) -> CausalLM:
    return _build(config, scale=None, sandwich=False, qk_norm=False, kinds=(FULL,))


def gemma2(config: Config) -> CausalLM:
    scale = config.query_pre_attn_scalar**-0.5
    return _build(config, scale=scale, sandwich=True, qk_norm=False, kinds=(FULL,))


def gemma3(config: Config) -> CausalLM:
    scale = config.query_pre_attn_scalar**-0.5
    return _build(config, scale=scale, sandwich=True, qk_norm=True, kinds=(FULL, SLIDING))


def _build(c: Config, *, scale: float | None, sandwich: bool, qk_norm: bool, kinds: tuple[str, ...]) -> CausalLM:
    """`kinds` are the kinds of layers that have a rotary base of their own."""
    norm = partial(RMSNorm, eps=c.rms_norm_eps, offset=1.0)
    # "gelu" in a Gemma configuration has always meant the tanh form (Hugging Face transformers, pull request 29402).
    act = "gelu_pytorch_tanh" if c.hidden_act == "gelu" else c.hidden_act
    bias = c.get("attention_bias", False)

    def layer(index: int) -> DecoderLayer:
        attention = Attention(
            c.hidden_size,
            c.num_attention_heads,
            c.num_key_value_heads,
            c.head_dim,
            bias=bias,
            out_bias=bias,
            qk_norm=norm if qk_norm else None,
            scale=scale,
            window=c.window(index),
            softcap=c.get("attn_logit_softcapping"),
        )
        mlp = GatedMLP(c.hidden_size, c.intermediate_size, act)
        return DecoderLayer(attention, mlp, partial(norm, c.hidden_size), sandwich=sandwich)

    decoder = Decoder(
        Embedding(c.vocab_size, c.hidden_size, scale=c.hidden_size**0.5),
        [layer(index) for index in range(c.num_hidden_layers)],
        norm(c.hidden_size),
        {kind: Rope(c.head_dim, c.rope(kind)) for kind in kinds},
        [kind if kind in kinds else FULL for kind in c.layer_types],
    )
    return CausalLM(decoder, c.hidden_size, c.vocab_size, softcap=c.get("final_logit_softcapping"))
