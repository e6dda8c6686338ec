"""What is fixed in UQFF: names of files and of entries, numbers of families and types, versions.

A model is a folder.  `<stem>-0.uqff`, `<stem>-1.uqff`, ... are safetensors files with the layers that are packed:

    K.weight             blocks, codes or plain numbers; K is the name of a layer, "model.layers.0.mlp.up_proj"
    K.weight.format      a byte: the family
    K.weight.<attribute> what the family needs besides: scales, and descriptions, which are scalars or short lists
    K.bias               where the layer has one
    uqff.version.major, .minor, .patch

The stacked experts [experts, out, in] of a layer are called `<...>.experts.gate_proj`, `up_proj` and `down_proj`.  What
is not packed, such as norms, lies in residual.safetensors beside them, and config.json and the tokenizer too.  From
mistralrs-quant/src/uqff and mistralrs-core/src/pipeline/isq.rs (https://github.com/EricLBuehler/mistral.rs, 0.9.5).

Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

SUFFIX = ".uqff"
RESIDUAL = "residual.safetensors"
REPORT = "uqff_report.json"
CONFIG = "config.json"

VERSION = (1, 2, 0)
VERSION_KEYS = ("uqff.version.major", "uqff.version.minor", "uqff.version.patch")

GGUF, UNQUANT, HQQ, FP8, AFQ, F8Q8, MXFP4 = range(7)
FAMILIES = ("gguf", "unquant", "hqq", "fp8", "afq", "f8q8", "mxfp4")
"""By the number in `K.weight.format`."""
ATTRIBUTES: Mapping[int, frozenset[str]] = MappingProxyType(
    {
        GGUF: frozenset({"dtype", "shape"}),
        UNQUANT: frozenset(),
        HQQ: frozenset(
            {
                *("scales", "zeros", "shape", "bits", "group_size", "axis"),
                *("optimization_steps", "round_zeros", "channel_wise"),
            }
        ),
        FP8: frozenset({"dequant_w_scale", "dequant_x_scale", "quant_scale", "dtype"}),
        AFQ: frozenset({"scales", "biases", "bits", "group_size"}),
        F8Q8: frozenset({"num_blocks", "shape"}),
        MXFP4: frozenset({"scales"}),
    }
)
"""What a layer of each family has beside `K.weight` and `K.weight.format`; all of it, and nothing else."""

GGML = frozenset({0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 30})
"""Numbers of ggml's types that mistral.rs has in `K.weight.dtype`; they are those of GGUF."""
F8_E4M3 = 9
"""The number of float8 in `K.weight.dtype` of the family fp8."""
AFQ_BITS = (2, 3, 4, 6, 8)
AFQ_GROUPS = (32, 64, 128)
HQQ_PACKINGS: Mapping[int, tuple[int, str]] = MappingProxyType(
    {8: (1, "U8"), 4: (2, "U8"), 3: (10, "I32"), 2: (4, "U8"), 1: (8, "U8")}
)
"""By bits: how many codes lie in an element, and its type (`bitpack_type` there, and the hqq package)."""

_EXPERTS = re.compile(r"(.+)\.experts\.(gate_proj|up_proj|down_proj)")


def parameter(key: str, dimensions: int) -> str:
    """The name under which a weight is known to the rules of architectures: that of a Hugging Face checkpoint.

    Stacked experts are called as their parameters, without ".weight", and lie in "mlp" whatever the family calls it.
    """
    experts = _EXPERTS.fullmatch(key)
    if dimensions != 3 or experts is None:
        return f"{key}.weight"
    return f"{_swapped(experts[1], 'block_sparse_moe', 'mlp')}.experts.{experts[2]}"


def key_of(name: str, model_type: str) -> str:
    """The opposite of `parameter`: the key of a weight in a model of this type."""
    experts = _EXPERTS.fullmatch(name)
    key = name if experts else name.removesuffix(".weight")
    if model_type in ("mixtral", "phimoe") and (experts or key.endswith(".mlp.gate")):
        before, _, after = key.rpartition(".mlp.")
        return f"{before}.block_sparse_moe.{after}"
    return key


def _swapped(prefix: str, old: str, new: str) -> str:
    return prefix.removesuffix(old) + new if prefix.endswith(f".{old}") else prefix
