"""Small configurations that exercise every argument of the network, for `bestiary.testing`."""

from functools import partial

from bestiary.testing.tiny import decoder, rope

_llama = partial(decoder, "LlamaForCausalLM", "llama")
_mistral = partial(decoder, "MistralForCausalLM", "mistral")
_ministral = partial(decoder, "MinistralForCausalLM", "ministral")
_ministral3 = partial(decoder, "Ministral3ForCausalLM", "ministral3")
_yarn = partial(rope, "yarn", llama_4_scaling_beta=0.1, original_max_position_embeddings=16)
_VISION = {"model_type": "pixtral", "image_size": 32, "patch_size": 8, "num_hidden_layers": 1}
_VISION |= {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}

LLAMA = (
    _llama(),
    _llama(tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=24),
    _llama(num_key_value_heads=1, **rope("llama3", **_LLAMA3)),
    _llama(**rope("linear", factor=2.0)),
    _llama(**rope("yarn", factor=4.0, original_max_position_embeddings=64)),
)
MISTRAL = (
    _mistral(sliding_window=5),
    _mistral(sliding_window=None, head_dim=32),
    _mistral(sliding_window=9, tie_word_embeddings=True, num_key_value_heads=4),
)
MINISTRAL = (
    _ministral(head_dim=16, sliding_window=5, layer_types=["full_attention", *["sliding_attention"] * 2]),
    _ministral(head_dim=24, sliding_window=7, layer_types=["sliding_attention"] * 3),
    _ministral(head_dim=32, sliding_window=4, layer_types=["full_attention"] * 3),
)
MINISTRAL3 = (
    _ministral3(head_dim=16, **_yarn(factor=16.0, mscale=1.0, mscale_all_dim=1.0, beta_fast=32.0, beta_slow=1.0)),
    _ministral3(head_dim=32, tie_word_embeddings=True, **_yarn(factor=4.0, original_max_position_embeddings=8)),
    _ministral3(head_dim=16, sliding_window=6, **_yarn(factor=16.0)),
)
AROUND_MINISTRAL3 = tuple(
    {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "text_config": text,
        "vision_config": _VISION,
        "image_token_index": 10,
        "tie_word_embeddings": text.get("tie_word_embeddings", False),
    }
    for text in MINISTRAL3
)
