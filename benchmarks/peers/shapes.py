"""The shapes of the models that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_COMMON = {"hidden_act": "silu", "dtype": "bfloat16", "torch_dtype": "bfloat16", "tie_word_embeddings": True}
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
    "m['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Shape:
    """A published model's sizes, and how its tokenizer cuts texts before it merges."""

    name: str
    config: Mapping[str, Any]
    cuts: str
    special: tuple[str, ...]
    """Tokens that end the vocabulary; the last one ends an answer."""
    chat_template: str
    around: tuple[str, str]
    """What that template writes before and after the text of a single question."""
    composed: bool = False
    """Whether the tokenizer composes letters and accents (NFC) first."""
    ignore_merges: bool = False
    """Whether a whole word of the vocabulary is taken before any merge."""
    bos: str | None = None


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            "0.6B",  # Qwen3-0.6B
            {
                **_COMMON,
                "architectures": ["Qwen3ForCausalLM"],
                "model_type": "qwen3",
                "vocab_size": 151936,
                "hidden_size": 1024,
                "intermediate_size": 3072,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "attention_bias": False,
                "rms_norm_eps": 1e-6,
                "rope_theta": 1e6,
                "max_position_embeddings": 40960,
            },
            _LETTERS + r"\p{N}" + _OTHERS,
            ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
            _CHATML,
            ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
            composed=True,
        ),
        Shape(
            "1.2B",  # Llama-3.2-1B, without its scaling of rotary angles
            {
                **_COMMON,
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "vocab_size": 128256,
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 16,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 64,
                "attention_bias": False,
                "mlp_bias": False,
                "rms_norm_eps": 1e-5,
                "rope_theta": 5e5,
                "max_position_embeddings": 131072,
            },
            _LETTERS + r"\p{N}{1,3}" + _OTHERS,
            ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>", "<|eot_id|>"),
            _LLAMA,
            (
                "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
                "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            ignore_merges=True,
            bos="<|begin_of_text|>",
        ),
    )
}
"""By name."""

FORMATS = ("Q4_0", "Q4_K_M", "Q6_K", "Q8_0", "BF16")
"""Types and mixtures of GGUF files."""
