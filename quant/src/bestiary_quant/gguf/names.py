"""From the tensor names of GGUF to those of Hugging Face checkpoints, through the tables of the gguf package.

The tables go from many names to one, for they serve a converter.  The way back asks them for each name of the list
below, in its order, and keeps the first that leads to a tensor: so the spelling is that of Llama, which most families
and the blocks of `bestiary.nn` share.  What no name of the list leads to keeps its GGUF name, and is renamed by the
rules of the architecture (`Gguf.weights`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_BLOCK = re.compile(r"blk\.([0-9]{1,9})\.(.+)")
_SUFFIXES = (".weight", ".bias")
MODEL = ("model.embed_tokens", "model.norm", "lm_head")
LAYER = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.qkv_proj",
    "self_attn.o_proj",
    "self_attn.q_norm",
    "self_attn.k_norm",
    "self_attn.sinks",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "mlp.gate",
    "mlp.shared_expert.gate_proj",
    "mlp.shared_expert.up_proj",
    "mlp.shared_expert.down_proj",
    "mlp.shared_expert_gate",
)
EXPERTS = ("mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj")
"""Stacked tensors [experts, out, in]; as parameters they have no ".weight" behind their names."""
ROTARY = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
"""Tensors that belong to the configuration (`rope_parameters`), and are no weights."""


def hugging_face_names(names: Iterable[str], architecture: str | None) -> dict[str, str]:
    """The tensors that are weights, each with its name in a Hugging Face checkpoint.

    `architecture` is `general.architecture` of the file; of one that gguf does not know all names stay as they are.
    """
    whole, layer = _tables(architecture)
    found = {}
    for name in names:
        if name in ROTARY:
            continue
        base, suffix = next(((name.removesuffix(end), end) for end in _SUFFIXES if name.endswith(end)), (name, ""))
        block = _BLOCK.fullmatch(base)
        if block is None:
            found[name] = whole[base] + suffix if base in whole else name
        elif block[2] in layer:
            inner = layer[block[2]]
            found[name] = f"model.layers.{block[1]}.{inner}{'' if inner in EXPERTS else suffix}"
        else:
            found[name] = name
    return found


def _tables(architecture: str | None) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """By GGUF name: the tensors of the whole model, and those of a layer without their `blk.N.`."""
    from gguf.constants import MODEL_ARCH_NAMES
    from gguf.tensor_mapping import TensorNameMap

    class Table(TensorNameMap):
        # A table of some architectures (arctic) writes into the one of the class, and so into all that follow.
        block_mappings_cfg = dict(TensorNameMap.block_mappings_cfg)

    known = next((code for code, name in MODEL_ARCH_NAMES.items() if name == architecture), None)
    if known is None:
        return {}, {}
    table = Table(known, 1)
    whole: dict[str, str] = {}
    layer: dict[str, str] = {}
    for name in MODEL:
        if target := table.get_name(name):
            whole.setdefault(target, name)
    for name in (*LAYER, *EXPERTS):
        if target := table.get_name(f"model.layers.0.{name}"):
            layer.setdefault(target.removeprefix("blk.0."), name)
    return whole, layer
