"""The configurations of published checkpoints, as their config.json files have them."""

from typing import Any

_SMOL_TEXT: dict[str, Any] = {
    "architectures": ["VLlama3ForCausalLM"],
    "head_dim": 64,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "neftune_noise_alpha": 0.0,
    "pad_token_id": 2,
    "pixel_shuffle_factor": 4,
    "qk_layer_norms": False,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_theta": 100000,
    "torch_dtype": "bfloat16",
    "use_resampler": False,
    "vocab_size": 49280,
}
_SMOL_VISION: dict[str, Any] = {
    "hidden_size": 768,
    "image_size": 512,
    "max_image_size": {"longest_edge": 512},
    "num_attention_heads": 12,
    "patch_size": 16,
    "size": {"longest_edge": 2048},
    "tie_word_embeddings": False,
    "use_base_siglip": False,
}
_SMOL: dict[str, Any] = {
    "image_token_id": 49190,
    "pad_token_id": 128002,
    "scale_factor": 4,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.47.1",
    "use_cache": False,
    "use_reentrant_checkpointing": False,
    "vocab_size": 49280,
}
SMOLVLM_256M: dict[str, Any] = {
    **_SMOL,
    "architectures": ["Idefics3ForConditionalGeneration"],
    "model_type": "idefics3",
    "text_config": {
        **_SMOL_TEXT,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
    },
    "vision_config": {**_SMOL_VISION, "model_type": "idefics3"},
}
SMOLVLM2_500M: dict[str, Any] = {
    **_SMOL,
    "architectures": ["SmolVLMForConditionalGeneration"],
    "model_type": "smolvlm",
    "text_config": {
        **_SMOL_TEXT,
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_attention_heads": 15,
        "num_hidden_layers": 32,
        "num_key_value_heads": 5,
    },
    "vision_config": {**_SMOL_VISION, "model_type": "smolvlm_vision"},
}
# What equals the defaults of Llama is left out: 4096 wide, 32 layers, 32 heads.
IDEFICS3_8B: dict[str, Any] = {
    "architectures": ["Idefics3ForConditionalGeneration"],
    "image_token_id": 128257,
    "model_type": "idefics3",
    "scale_factor": 2,
    "text_config": {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "model_type": "llama",
        "num_key_value_heads": 8,
        "pad_token_id": 128002,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "torch_dtype": "bfloat16",
        "vocab_size": 128259,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 364,
        "intermediate_size": 4304,
        "model_type": "idefics3",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}
