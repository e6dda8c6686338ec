"""Small configurations that exercise every argument of the network, for `bestiary.testing`."""

from functools import partial

from bestiary.testing.tiny import decoder

_tiny = partial(decoder, head_dim=16, bos_token_id=2, eos_token_id=1)
GEMMA = (
    _tiny("GemmaForCausalLM", "gemma"),
    _tiny("GemmaForCausalLM", "gemma", num_key_value_heads=1, head_dim=32, hidden_act="gelu"),
    _tiny("GemmaForCausalLM", "gemma", tie_word_embeddings=False, attention_bias=True),
)
GEMMA2 = (
    _tiny("Gemma2ForCausalLM", "gemma2", sliding_window=5, query_pre_attn_scalar=24),
    _tiny(
        "Gemma2ForCausalLM",
        "gemma2",
        sliding_window=7,
        head_dim=32,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
    ),
    _tiny("Gemma2ForCausalLM", "gemma2", attn_logit_softcapping=None, final_logit_softcapping=None),
)
GEMMA3 = (
    _tiny(
        "Gemma3ForCausalLM",
        "gemma3_text",
        sliding_window=5,
        query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    _tiny(
        "Gemma3ForCausalLM",
        "gemma3_text",
        sliding_window=9,
        head_dim=32,
        num_key_value_heads=1,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    ),
    _tiny("Gemma3ForCausalLM", "gemma3_text", num_hidden_layers=7, tie_word_embeddings=False, sliding_window=6),
)
