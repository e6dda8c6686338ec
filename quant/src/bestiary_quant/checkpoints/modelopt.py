"""NVIDIA ModelOpt: NVFP4, MXFP4, FP8 and MXFP8, each weight as its tensors show it.

    NVFP4   X.weight [out, in / 2] uint8     X.weight_scale float8     X.weight_scale_2, which multiplies it
    FP8     X.weight float8                  X.weight_scale

From `modelopt/torch/quantization/qtensor` and `modelopt/torch/export` (0.47).
"""

from __future__ import annotations

from collections.abc import Iterator

from bestiary_quant.checkpoints.float4 import float4_group
from bestiary_quant.checkpoints.fp8 import float8_group
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import FLOAT8, Group, Stored

_ALGORITHMS = ("nvfp4", "w4a16_nvfp4", "fp8", "fp8_per_channel_per_token", "mxfp8", "mxfp4", "mixed_precision")


def groups(stored: Stored, settings: Settings) -> Iterator[Group]:
    """The packed weights.  Raises ConfigError for an algorithm that is not read, CheckpointError for bad tensors."""
    nested = settings.get("quantization")
    if isinstance(nested, dict):
        settings = Settings(nested, f"{settings.where}, quantization")
    settings.word("quant_algo", of=_ALGORITHMS, default="mixed_precision")
    smooth = next(stored.before(".pre_quant_scale"), None)
    if smooth is not None:
        raise stored.error(f"{smooth[0]}.pre_quant_scale changes the activations of a layer, which is not read here.")
    for name in stored.names:
        kind = stored.checkpoint.dtype(name)
        if kind in FLOAT8 and name.endswith("weight"):
            yield float8_group(stored, settings, name)
        elif kind == "U8" and f"{name}_scale" in stored:
            factor = f"{name}_scale_2"
            plain = stored.checkpoint.dtype(f"{name}_scale") != "F8_E4M3"
            inputs = [f"{name.removesuffix('weight')}input_scale"]
            yield float4_group(stored, name, name, f"{name}_scale", factor=None if plain else factor, inputs=inputs)
