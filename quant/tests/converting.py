"""Writing GGUF files with the gguf package, as llama.cpp's converter does it: the outside writer of these tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file

from bestiary.testing.reference import Reference

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen2MoeForCausalLM": "qwen2moe",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3moe",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
}
EXPERT = re.compile(r"(.+\.mlp\.experts)\.(\d+)\.(\w+)\.weight")


def convert(reference: Reference, path: Path, kind: Type = Type.F32, **options: Any) -> Path:
    """A tiny transformers model as GGUF: matrices in blocks of `kind`, the rest in float32 (conversion/*.py)."""
    config = reference.model.config
    architecture = ARCHITECTURES[config.architectures[0]]
    if "mrope_section" in config.rope_parameters:
        architecture = "qwen2vl"
    writer = gguf.GGUFWriter(path, architecture, **options)
    _write_config(writer, architecture, config)
    code = next(code for code, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(code, config.num_hidden_layers)
    if (factors := llama3_factors(config)) is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    for name, tensor in _stacked(load_file(reference.folder / "model.safetensors")).items():
        if name == "lm_head.weight" and (architecture.startswith("gemma") or config.tie_word_embeddings):
            continue
        stored = table.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        add(writer, stored, _changed(name, tensor, architecture, config).numpy(), kind)
    return write(writer, path)


def add(writer: gguf.GGUFWriter, name: str, values: numpy.ndarray, kind: Type) -> None:
    """One tensor, in blocks of `kind` where it is a matrix of whole blocks and no router."""
    length, _ = gguf.GGML_QUANT_SIZES[kind]
    if kind == Type.F32 or values.ndim < 2 or values.shape[-1] % length or "ffn_gate_inp" in name:
        writer.add_tensor(name, numpy.ascontiguousarray(values.astype(numpy.float32)))
    else:
        writer.add_tensor(name, gguf.quants.quantize(numpy.ascontiguousarray(values), kind), raw_dtype=kind)


def write(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama3_factors(config: Any) -> numpy.ndarray | None:
    """What the file of a Llama 3.1 holds in place of `rope_parameters` (LlamaModel.generate_extra_tensors)."""
    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return None
    dim = config.head_dim or config.hidden_size // config.num_attention_heads
    waves = 2 * numpy.pi * rope["rope_theta"] ** (numpy.arange(0, dim, 2) / dim)
    turns = rope["original_max_position_embeddings"] / waves
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = ((turns - low) / (high - low)).clip(0, 1)
    return numpy.asarray(1 / ((1 - smooth) / factor + smooth), numpy.float32)


def _write_config(writer: gguf.GGUFWriter, architecture: str, config: Any) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None)
    if head_dim is not None:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    rope = config.rope_parameters
    full = rope.get("full_attention", rope)
    if architecture not in ("gemma", "gemma2"):
        writer.add_rope_freq_base(full["rope_theta"])
    if full.get("rope_type") in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(full["rope_type"]))
        writer.add_rope_scaling_factor(full["factor"])
    if full.get("rope_type") == "yarn":
        writer.add_rope_scaling_orig_ctx_len(full["original_max_position_embeddings"])
    if architecture == "qwen2vl":
        writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
    if architecture == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(head_dim or config.hidden_size // config.num_attention_heads)
    if architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if architecture.endswith("moe"):
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if architecture == "qwen2moe":
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_pad_token_id(config.pad_token_id)


def _stacked(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The experts of each layer as one tensor."""
    groups: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if expert := EXPERT.fullmatch(name):
            groups.setdefault(f"{expert[1]}.{expert[3]}.weight", {})[int(expert[2])] = tensor
    whole = {name: tensor for name, tensor in tensors.items() if not EXPERT.fullmatch(name)}
    return whole | {name: torch.stack([part for _, part in sorted(parts.items())]) for name, parts in groups.items()}


def _changed(name: str, tensor: torch.Tensor, architecture: str, config: Any) -> torch.Tensor:
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    if architecture == "llama" and (match := re.search(r"\.([qk])_proj\.", name)):
        heads = config.num_attention_heads if match[1] == "q" else config.num_key_value_heads
        return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
    return tensor
