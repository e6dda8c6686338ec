"""How packed weights are stored in safetensors: the tensors of one weight, and what config.json says of all.

    fp8, int8, mxfp4   compressed-tensors: float-quantized, int-quantized, mxfp4-pack-quantized
    fp8_blocks         "fp8" with weight_block_size, as DeepSeek-V3 is published
    afq2 to afq8       MLX, with bits that may differ from weight to weight
    gptq2 to gptq8     GPTQ, first version
    awq4               AWQ, "gemm"

Each is read back by `bestiary_quant.checkpoints`; vLLM and transformers read all but MLX, which mlx-lm reads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from bestiary.errors import OptionError
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.making.float8 import BLOCK
from bestiary_quant.writing import words
from bestiary_quant.writing.words import Words


@dataclass
class Notes:
    """What was seen while the weights were written."""

    forms: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bits and columns of a group, by module."""
    ordered: bool = False
    """Whether columns of a group lie apart."""
    symmetric: bool = True
    """Whether all zeros are the middle code."""
    plain: list[str] = field(default_factory=list)
    """Modules of linear layers that were not packed."""

    @property
    def common(self) -> tuple[int, int]:
        """The bits and the group of most weights."""
        return Counter(self.forms.values()).most_common(1)[0][0]


@dataclass(frozen=True)
class Layout:
    """One way."""

    tensors: Callable[[Any], Words | None]
    """The tensors of one packed weight, by the ends of their names; None for one that is not of this way."""
    config: Callable[[Notes], dict[str, Any]]
    """`quantization_config`."""
    embeddings: bool = False
    """Whether embeddings may be stored so."""
    keys: tuple[str, ...] = ("quantization_config",)


def _float8(weight: Any) -> Words | None:
    scaled = _scaled(weight, torch.float8_e4m3fn)
    if scaled is None or weight.scaling.run < weight.shape[1] or bool((weight.scaling.band != scaled[0]).any()):
        return None
    return {"weight": weight.codes.data, "weight_scale": weight.scaling.scales[scaled[0], :1].float()}


def _float8_blocks(weight: Any) -> Words | None:
    scaled = _scaled(weight, torch.float8_e4m3fn)
    if scaled is None or weight.scaling.run != BLOCK:
        return None
    bands = weight.scaling.band[::BLOCK]
    if not torch.equal(bands.repeat_interleave(BLOCK)[: weight.shape[0]], weight.scaling.band):
        return None
    return {"weight": weight.codes.data, "weight_scale_inv": weight.scaling.scales[bands].float()}


def _int8(weight: Any) -> Words | None:
    own = isinstance(weight, CodedMatrix) and weight.codes.data.dtype == torch.int8
    if not own or weight.scaling.scales.shape != (weight.shape[0], 1) or len(weight.scaling.tensors()) > 1:
        return None
    return {"weight": weight.codes.data, "weight_scale": weight.scaling.scales}


def _scaled(weight: Any, dtype: torch.dtype) -> tuple[int] | None:
    """The first row of scales of a weight in numbers of 8 bits with nothing but scales for bands of rows."""
    if not isinstance(weight, CodedMatrix) or weight.codes.data.dtype != dtype:
        return None
    if weight.scaling.band is None or set(weight.scaling.tensors()) != {"scales", "band"}:
        return None
    return (int(weight.scaling.band[0]),)


def _affine(weight: Any) -> Words | None:
    if not isinstance(weight, CodedMatrix) or weight.codes.data.dtype != torch.uint8 or weight.codes.table is not None:
        return None
    scaling = weight.scaling
    whole = weight.shape[1] * weight.codes.bits % 32 == 0 and weight.shape[1] % scaling.run == 0
    if scaling.offsets is None or set(scaling.tensors()) != {"scales", "offsets"} or not whole:
        return None
    data = weight.codes.data.contiguous().view(torch.uint32)
    return {"weight": data, "scales": scaling.scales, "biases": scaling.offsets}


def _coded(make: Callable[[CodedMatrix], Words | None]) -> Callable[[Any], Words | None]:
    return lambda weight: make(weight) if isinstance(weight, CodedMatrix) else None


def _compressed(form: str, activations: bool, **weights: Any) -> Callable[[Notes], dict[str, Any]]:
    """`config_groups` with one group: all linear layers but those that are named."""
    stated = {"symmetric": True, "dynamic": False, "group_size": None, **weights}
    inputs = {"num_bits": 8, "type": weights["type"], "symmetric": True, "strategy": "token", "dynamic": True}
    group = {"targets": ["Linear"], "weights": stated, "input_activations": inputs if activations else None}

    def config(notes: Notes) -> dict[str, Any]:
        return {
            "quant_method": "compressed-tensors",
            "format": form,
            "quantization_status": "compressed",
            "config_groups": {"group_0": {**group, "output_activations": None, "format": form}},
            "ignore": sorted(notes.plain),
            "kv_cache_scheme": None,
        }

    return config


def _blocks_config(notes: Notes) -> dict[str, Any]:
    return {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [BLOCK, BLOCK],
        "modules_to_not_convert": sorted(notes.plain),
    }


def _mlx_config(notes: Notes) -> dict[str, Any]:
    bits, size = notes.common
    others = {name: form for name, form in notes.forms.items() if form != (bits, size)}
    own = {name: {"group_size": group, "bits": number} for name, (number, group) in sorted(others.items())}
    return {"group_size": size, "bits": bits, "mode": "affine", **own}


def _gptq_config(notes: Notes) -> dict[str, Any]:
    bits, size = notes.common
    others = {name: form for name, form in notes.forms.items() if form != (bits, size)}
    dynamic = {f"+:^{re.escape(name)}$": {"bits": b, "group_size": g} for name, (b, g) in sorted(others.items())}
    dynamic |= {f"-:^{re.escape(name)}$": {} for name in sorted(notes.plain) if name != "lm_head"}
    return {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": size,
        "desc_act": notes.ordered,
        "sym": notes.symmetric,
        "lm_head": "lm_head" in notes.forms,
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
        **({"dynamic": dynamic} if dynamic else {}),
    }


def _awq_config(notes: Notes) -> dict[str, Any]:
    if len(set(notes.forms.values())) > 1:
        sizes = ", ".join(str(size) for size in sorted({size for _, size in notes.forms.values()}))
        raise OptionError(f"AWQ has one size of groups for a model, and here there are {sizes}.", fix="take gptq4")
    bits, size = notes.common
    return {
        "quant_method": "awq",
        "bits": bits,
        "group_size": size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": sorted(notes.plain) or None,
    }


_GROUP32 = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
_MLX = Layout(_affine, _mlx_config, embeddings=True, keys=("quantization", "quantization_config"))
_GPTQ = Layout(_coded(words.gptq), _gptq_config)
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "fp8": Layout(_float8, _compressed("float-quantized", False, num_bits=8, type="float", strategy="tensor")),
        "fp8_blocks": Layout(_float8_blocks, _blocks_config),
        "int8": Layout(_int8, _compressed("int-quantized", True, num_bits=8, type="int", strategy="channel")),
        "mxfp4": Layout(words.mxfp4, _compressed("mxfp4-pack-quantized", False, **_GROUP32)),
        **{f"afq{bits}": _MLX for bits in (2, 3, 4, 6, 8)},
        **{f"gptq{bits}": _GPTQ for bits in (2, 3, 4, 8)},
        "awq4": Layout(_coded(words.awq), _awq_config),
    }
)
"""By scheme."""
