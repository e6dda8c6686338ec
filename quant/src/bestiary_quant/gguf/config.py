"""From the metadata of a GGUF file to a configuration with the keys of Hugging Face's config.json.

What a file does not say is known by its `general.architecture`: it stands in ARCHITECTURES, from the converter and the
graphs of llama.cpp (https://github.com/ggml-org/llama.cpp, conversion/ and src/models/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bestiary.errors import CheckpointError, shown
from bestiary_quant.gguf.header import Entry
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf.rotary import Content, rope_scaling
from bestiary_quant.gguf.single import shortest


@dataclass(frozen=True)
class Family:
    """One `general.architecture`: its names at Hugging Face, and what its files take for granted."""

    name: str
    model_type: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    largest: int | None = None
    """Layers of the largest model, whose queries alone are scaled by hidden_size / num_attention_heads (Gemma)."""


SILU = {"hidden_act": "silu"}
GELU = {"hidden_act": "gelu_pytorch_tanh"}
SPARSE = {**SILU, "decoder_sparse_step": 1, "mlp_only_layers": []}
ARCHITECTURES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": Family("LlamaForCausalLM", "llama", SILU),
        "qwen2": Family("Qwen2ForCausalLM", "qwen2", SILU),
        "qwen2vl": Family("Qwen2ForCausalLM", "qwen2", SILU),
        "qwen2moe": Family("Qwen2MoeForCausalLM", "qwen2_moe", {**SPARSE, "norm_topk_prob": False}),
        "qwen3": Family("Qwen3ForCausalLM", "qwen3", SILU),
        "qwen3moe": Family("Qwen3MoeForCausalLM", "qwen3_moe", {**SPARSE, "norm_topk_prob": True}),
        "gemma": Family("GemmaForCausalLM", "gemma", GELU),
        "gemma2": Family("Gemma2ForCausalLM", "gemma2", {**GELU, "sliding_window_pattern": 2}, largest=46),
        "gemma3": Family(
            "Gemma3ForCausalLM",
            "gemma3_text",
            {**GELU, "sliding_window_pattern": 6, "rope_local_base_freq": 10000.0},
            largest=62,
        ),
    }
)
MIXTRAL = Family("MixtralForCausalLM", "mixtral", SILU)
"""Its files say "llama", and have experts."""

WHOLE = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "pooling_type": "pooling_type",
    "vocab_size": "vocab_size",
}
"""Keys behind the name of the architecture that hold whole numbers.  Models of embeddings have a pooling type."""
NUMBERS = {
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
}
TOKENS = {
    "tokenizer.ggml.bos_token_id": "bos_token_id",
    "tokenizer.ggml.eos_token_id": "eos_token_id",
    "tokenizer.ggml.padding_token_id": "pad_token_id",
}
MAX_LAYERS = 4096


def hugging_face_config(metadata: Metadata, tensors: Mapping[str, Entry], content: Content) -> dict[str, Any]:
    """A config.json of the model whose metadata and tensors these are.

    Of an architecture that is not in ARCHITECTURES it has what the common keys say, and no `architectures`.  Raises
    CheckpointError for a value of the wrong type, and where layers differ in what a configuration has once.
    """
    architecture = metadata.architecture
    if architecture is None:
        raise CheckpointError(
            "The file does not say what it is: it has no general.architecture.",
            where=metadata.origin,
            fix="convert the model again, or take the file of the model itself",
        )
    stated: dict[str, Any] = {}
    for key, name in WHOLE.items():
        stated[name] = _whole(metadata, f"{architecture}.{key}", architecture in ARCHITECTURES)
    for key, name in NUMBERS.items():
        stated[name] = shortest(metadata.number(f"{architecture}.{key}"))
    for key, name in TOKENS.items():
        stated[name] = metadata.whole(key)
    family = ARCHITECTURES.get(architecture)
    if architecture == "llama" and stated["num_experts"]:
        family = MIXTRAL
    config: dict[str, Any] = {"model_type": architecture}
    if family is not None:
        config = {"architectures": [family.name], "model_type": family.model_type, **family.constants}
    config.update((name, value) for name, value in stated.items() if value is not None)
    config.update(_shapes(metadata, architecture, config, tensors))
    config.update(_windows(metadata, architecture))
    if family is not None and family.largest is not None:
        config.update(_query_scale(config, family.largest))
    if scaling := rope_scaling(metadata, architecture, config.get("max_position_embeddings"), tensors, content):
        config["rope_scaling"] = scaling
    if sections := _sections(metadata, architecture):
        config["rope_scaling"] = {"rope_type": "default", **config.get("rope_scaling", {}), "mrope_section": sections}
    return config


def _sections(metadata: Metadata, architecture: str) -> list[int]:
    """Pairs of dimensions that turn by time, row and column; files have a fourth number, which is 0."""
    key = f"{architecture}.rope.dimension_sections"
    if not 3 <= (metadata.count(key) or 0) <= 4:
        return []
    values = _of_layers(metadata, key)
    if not all(type(value) is int and value >= 0 for value in values):
        raise CheckpointError(f"The metadata {key!r} is {shown(values)}; whole numbers are due.", where=metadata.origin)
    return values[:3] if not any(values[3:]) else values


def _whole(metadata: Metadata, key: str, known: bool) -> int | list[int] | None:
    """A whole number, which some files state once and others for each layer; of unknown architectures maybe a list."""
    if metadata.count(key) is None:
        return metadata.whole(key)
    values = _of_layers(metadata, key)
    if not values or any(isinstance(value, bool) or not isinstance(value, int) for value in values):
        raise CheckpointError(f"The metadata {key!r} is {shown(values)}; whole numbers are due.", where=metadata.origin)
    if len(set(values)) == 1:
        return int(values[0])
    if known:
        raise CheckpointError(
            f"The metadata {key!r} differs from layer to layer: {shown(values)}.",
            where=metadata.origin,
            fix="take another file of the model; no published model of this architecture is like that",
        )
    return values


def _of_layers(metadata: Metadata, key: str) -> list[Any]:
    if (count := metadata.count(key) or 0) > MAX_LAYERS:
        raise CheckpointError(f"The metadata {key!r} has {count} items, one for each layer.", where=metadata.origin)
    values = metadata[key]
    return values if isinstance(values, list) else values.tolist()  # type: ignore[union-attr]


def _shapes(
    metadata: Metadata, architecture: str, config: Mapping[str, Any], tensors: Mapping[str, Entry]
) -> dict[str, Any]:
    """What the tensors say better than the metadata, and what only they say."""
    found: dict[str, Any] = {"tie_word_embeddings": "output.weight" not in tensors}
    embedding = tensors.get("token_embd.weight")
    if embedding is not None:  # converters cut rows that no token has, and leave vocab_size as it was
        found["vocab_size"] = embedding.shape[0]
    elif "vocab_size" not in config and (count := metadata.count("tokenizer.ggml.tokens")) is not None:
        found["vocab_size"] = count
    if "blk.0.attn_q.bias" in tensors and "blk.0.attn_output.bias" in tensors:
        found["attention_bias"] = True
    if "blk.0.ffn_up.bias" in tensors:
        found["mlp_bias"] = True
    turning = metadata.whole(f"{architecture}.rope.dimension_count")
    if turning is not None and "head_dim" in config:
        if turning < config["head_dim"]:
            found["partial_rotary_factor"] = turning / config["head_dim"]
    elif turning is not None and architecture == "llama":
        found["head_dim"] = turning
    return found


def _windows(metadata: Metadata, architecture: str) -> dict[str, Any]:
    """Every how many layers one sees everything; or, for each layer, whether a window limits it."""
    key = f"{architecture}.attention.sliding_window_pattern"
    if metadata.count(key) is None:
        period = metadata.whole(key)
        return {} if period is None else {"sliding_window_pattern": period}
    limited = _of_layers(metadata, key)
    return {"layer_types": ["sliding_attention" if limit else "full_attention" for limit in limited]}


def _query_scale(config: Mapping[str, Any], largest: int) -> dict[str, Any]:
    """Gemma: by the width of a head, in the largest model by the share of a head in the width of the model."""
    if not all(config.get(key) for key in ("head_dim", "hidden_size", "num_attention_heads")):
        return {}
    heads = config["hidden_size"] // config["num_attention_heads"]
    return {"query_pre_attn_scalar": heads if config.get("num_hidden_layers") == largest else config["head_dim"]}
