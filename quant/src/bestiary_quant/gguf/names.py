"""From the tensor names of GGUF to those of Hugging Face checkpoints.

The spelling is that of Llama, which most families and the blocks of `bestiary.nn` share.  What is not below keeps its
GGUF name, and is renamed by the rules of the architecture (`Gguf.weights`).  The tables of the gguf package, by which
converters go the other way, say the same of every architecture that they have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bestiary_quant.gguf.header import Entry

_BLOCK = re.compile(r"blk\.([0-9]{1,9})\.(.+)")
_SUFFIXES = (".weight", ".bias")
MODEL: Mapping[str, str] = MappingProxyType(
    {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
)
LAYER: Mapping[str, str] = MappingProxyType(
    {
        "attn_norm": "input_layernorm",
        "attn_norm_2": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_qkv": "self_attn.qkv_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "attn_sinks": "self_attn.sinks",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_norm_exps": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "ffn_gate_inp": "mlp.gate",
        "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
        "ffn_up_shexp": "mlp.shared_expert.up_proj",
        "ffn_down_shexp": "mlp.shared_expert.down_proj",
        "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
        "post_ffw_norm": "post_feedforward_layernorm",
    }
)
"""Behind `blk.N.` and `model.layers.N.`."""
EXPERTS: Mapping[str, str] = MappingProxyType(
    {
        "ffn_gate_exps": "mlp.experts.gate_proj",
        "ffn_up_exps": "mlp.experts.up_proj",
        "ffn_down_exps": "mlp.experts.down_proj",
    }
)
"""Stacked tensors [experts, out, in]; as parameters they have no ".weight" behind their names."""
_BEFORE_MLP = MappingProxyType({"ffn_norm": "pre_feedforward_layernorm"})
_AS_IN_FILE = MappingProxyType({"post_attention_norm": None})
OTHERWISE: Mapping[str, Mapping[str, str | None]] = MappingProxyType(
    {
        **dict.fromkeys(("gemma2", "gemma3", "gemma3n", "gemma4", "gemma-embedding"), _BEFORE_MLP),
        **dict.fromkeys(("afmoe", "falcon-h1"), _BEFORE_MLP),
        **dict.fromkeys(("glm4", "plamo2", "plamo3"), _AS_IN_FILE),
        "arctic": {"ffn_norm": None},
    }
)
"""What a tensor of a layer is called in some architectures; None: as in the file."""
ROTARY = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
"""Tensors that belong to the configuration (`rope_parameters`), and are no weights."""


def hugging_face_names(names: Iterable[str], architecture: str | None) -> dict[str, str]:
    """The tensors that are weights, each with its name in a Hugging Face checkpoint.

    `architecture` is `general.architecture` of the file.
    """
    special = OTHERWISE.get(architecture or "", {})
    found = {}
    for name in names:
        if name in ROTARY:
            continue
        base, suffix = next(((name.removesuffix(end), end) for end in _SUFFIXES if name.endswith(end)), (name, ""))
        block = _BLOCK.fullmatch(base)
        if block is None:
            found[name] = MODEL[base] + suffix if base in MODEL else name
        elif block[2] in EXPERTS:
            found[name] = f"model.layers.{block[1]}.{EXPERTS[block[2]]}"
        elif inner := special.get(block[2], LAYER.get(block[2])):
            found[name] = f"model.layers.{block[1]}.{inner}{suffix}"
        else:
            found[name] = name
    return found


_FEED_FORWARD = re.compile(r"v\.blk\.([0-9]{1,9})\.ffn_(up|down)\.(weight|bias)")


def companion_names(tensors: Mapping[str, Entry]) -> dict[str, str]:
    """The tensors of a companion (mmproj) by their names in the file, which the rules of architectures know.

    The converters of before 2025 gave a layer's two feed-forward matrices each the other's name; their shapes tell.
    """
    return {name: _straightened(name, tensors) for name in tensors}


def _straightened(name: str, tensors: Mapping[str, Entry]) -> str:
    part = _FEED_FORWARD.fullmatch(name)
    if part is None:
        return name
    layer, which, kind = part.groups()
    up, down, norm = (tensors.get(f"v.blk.{layer}.{each}.weight") for each in ("ffn_up", "ffn_down", "ln1"))
    if up is None or down is None or norm is None or len(down.shape) != 2 or len(norm.shape) != 1:
        return name
    if up.shape == down.shape or down.shape[1] != norm.shape[0]:
        return name
    return f"v.blk.{layer}.ffn_{'down' if which == 'up' else 'up'}.{kind}"
