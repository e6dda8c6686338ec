"""Small configurations that exercise every argument of the network, for `bestiary.testing`."""

from bestiary.testing.tiny import decoder, rope

LLAMA = (
    decoder("LlamaForCausalLM", "llama"),
    decoder("LlamaForCausalLM", "llama", tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=24),
    decoder(
        "LlamaForCausalLM",
        "llama",
        num_key_value_heads=1,
        **rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    decoder("LlamaForCausalLM", "llama", **rope("linear", factor=2.0)),
    decoder("LlamaForCausalLM", "llama", **rope("yarn", factor=4.0, original_max_position_embeddings=64)),
)
MISTRAL = (
    decoder("MistralForCausalLM", "mistral", sliding_window=5),
    decoder("MistralForCausalLM", "mistral", sliding_window=None, head_dim=32),
    decoder("MistralForCausalLM", "mistral", sliding_window=9, tie_word_embeddings=True, num_key_value_heads=4),
)
MINISTRAL = (
    decoder(
        "MinistralForCausalLM",
        "ministral",
        head_dim=16,
        sliding_window=5,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
    ),
    decoder("MinistralForCausalLM", "ministral", sliding_window=7, layer_types=["sliding_attention"] * 3, head_dim=24),
    decoder("MinistralForCausalLM", "ministral", head_dim=32, sliding_window=4, layer_types=["full_attention"] * 3),
)
_MINISTRAL3 = (
    decoder(
        "Ministral3ForCausalLM",
        "ministral3",
        head_dim=16,
        **rope(
            "yarn",
            factor=16.0,
            original_max_position_embeddings=16,
            beta_fast=32.0,
            beta_slow=1.0,
            mscale=1.0,
            mscale_all_dim=1.0,
            llama_4_scaling_beta=0.1,
        ),
    ),
    decoder(
        "Ministral3ForCausalLM",
        "ministral3",
        head_dim=32,
        tie_word_embeddings=True,
        **rope("yarn", factor=4.0, original_max_position_embeddings=8, llama_4_scaling_beta=0.2),
    ),
    decoder(
        "Ministral3ForCausalLM",
        "ministral3",
        head_dim=16,
        sliding_window=6,
        **rope("yarn", factor=16.0, original_max_position_embeddings=16, llama_4_scaling_beta=0.1),
    ),
)
MINISTRAL3 = _MINISTRAL3
_VISION = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
MISTRAL3_AROUND_MINISTRAL3 = tuple(
    {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "text_config": text,
        "vision_config": _VISION,
        "image_token_index": 10,
        "tie_word_embeddings": text.get("tie_word_embeddings", False),
    }
    for text in _MINISTRAL3
)
