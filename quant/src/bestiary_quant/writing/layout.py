"""How the weights of a network lie in a GGUF file: the opposite of the rules that read them (`Gguf.weights`).

From llama.cpp's converter (conversion/{llama,qwen,gemma}.py, modify_tensors; conversion/base.py, prepare_tensors).
"""

from __future__ import annotations

from functools import partial

import torch

from bestiary.config import Config
from bestiary.nn.packed import Packed, is_weight, moved
from bestiary_quant.blocks.types import BlockType
from bestiary_quant.writing.contents import PLAIN, Content, block_type, blocks, numbers

Weight = torch.Tensor | Packed
_ROTARY = {"llama": (".q_proj.", ".k_proj.")}
"""By architecture: weights whose rows lie as the pairs that are rotated."""
_ALWAYS_PLAIN = ("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight")


def shape_in_file(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The gate of a shared expert is a matrix of one row, and a vector in files."""
    return shape[1:] if name.endswith(".mlp.shared_expert_gate.weight") else shape


def always_plain(stored: str, shape: tuple[int, ...]) -> bool:
    """Whether llama.cpp wants a tensor in float32 whatever the others are."""
    return len(shape) < 2 or stored.endswith(_ALWAYS_PLAIN) or not stored.endswith(".weight")


def arranged(name: str, weight: Weight, config: Config, architecture: str) -> Weight:
    """The weight with its rows and numbers as the file has them, packed as it was where that is possible."""
    for part in _ROTARY.get(architecture, ()):
        if part in name:
            heads = config.num_attention_heads if part == ".q_proj." else config.num_key_value_heads
            return _moved(weight, heads)
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return plain(weight).float() + 1
    if name.endswith(".mlp.shared_expert_gate.weight"):
        return plain(weight).reshape(-1)
    return weight


def content(
    name: str,
    stored: str,
    weight: Weight,
    config: Config,
    architecture: str,
    rest: BlockType,
    unpack: bool = False,
) -> Content:
    """What is written of one parameter.

    `rest` is the type of matrices that are not packed, or not in blocks of GGUF; `unpack` makes all of them so.
    """
    lying = arranged(name, weight, config, architecture)
    kind = block_type(lying)
    if always_plain(stored, tuple(lying.shape)):
        return numbers(lying, PLAIN["F32"])
    if kind is None or unpack:
        return numbers(lying, rest)
    return blocks(lying, kind)


def plain(weight: Weight) -> torch.Tensor:
    """Any weight as a tensor."""
    return weight if isinstance(weight, torch.Tensor) else weight.dequantize()


def _moved(weight: Weight, heads: int) -> Weight:
    change = partial(rotary_pairs, heads=heads)
    if isinstance(weight, torch.Tensor):
        return change(weight)
    packed = moved(weight, change) if is_weight(weight) else None
    return change(plain(weight)) if packed is None else packed


def rotary_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The halves of each head's rows as pairs, (0, 0'), (1, 1') ...: what llama.cpp rotates together."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
