"""FP8: weights in float8 with a scale for the whole, for rows (fbgemm_fp8) or for blocks (DeepSeek-V3, Qwen3-FP8).

    X.weight float8     X.weight_scale_inv, X.weight_scale, X.scale or X.qscale_weight
    X float8            X_scale_inv or X_scale, for experts that are stacked

Which shapes of scales there are is in `scaled.py`.  What the files say of activations (`input_scale`) is kept beside
the weight and not used: products are taken in the type of the activations.
"""

from __future__ import annotations

from collections.abc import Iterator

from bestiary_quant.checkpoints.scaled import scaled_group
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import FLOAT8, Group, Stored

_SCALES = ("weight_scale_inv", "weight_scale", "scale", "qscale_weight")
_INPUTS = ("input_scale", "activation_scale", "qscale_act")


def groups(stored: Stored, settings: Settings) -> Iterator[Group]:
    """The packed weights.  Raises ConfigError for settings out of bounds, CheckpointError for tensors that disagree."""
    settings.word("fmt", of=("e4m3", "e5m2", "float8_e4m3fn", "float8_e5m2"), default="e4m3")
    block = settings.block("weight_block_size")
    for name in stored.names:
        if stored.checkpoint.dtype(name) in FLOAT8 and len(stored.checkpoint.shape(name)) > 1:
            yield float8_group(stored, settings, name, block)


def float8_group(stored: Stored, settings: Settings, name: str, block: tuple[int, int] | None = None) -> Group:
    """The weight whose numbers are the tensor `name`.  Raises CheckpointError where it has no scale, or several."""
    before = name.removesuffix("weight")
    if before != name:
        scales, inputs = [before + word for word in _SCALES], [before + word for word in _INPUTS]
    else:
        scales, inputs = [f"{name}_scale_inv", f"{name}_scale"], [f"{name}_input_scale"]
    scale = stored.one_of(scales, name, "scale")
    beside = [f"{before}input_scale_ub"]  # a bound on the scales of activations
    return scaled_group(stored, settings, name, scale, inputs=inputs, beside=beside, block=block)
