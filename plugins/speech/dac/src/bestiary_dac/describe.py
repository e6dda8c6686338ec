"""The configuration of weights that come without one."""

from collections.abc import Mapping
from typing import Any

from bestiary_dac.settings import MOST_BLOCKS

Shapes = Mapping[str, tuple[int, ...]]
_RATES = {9: 44100, 32: 24000, 12: 16000}
"""Samples in a second by the number of codebooks, of the published models: no shape tells it."""
_WEIGHTS = ("weight", "weight_v", "parametrizations.weight.original1")


def describe(shapes: Shapes) -> dict[str, Any] | None:
    """The config.json object of a file by the shapes of its tensors, or None where it is no codec that was published.

    Both layouts are known (see `rules`).
    """
    down = _ratios(shapes, ("encoder.block.{}.conv1", 0), ("encoder.block.{}.block.4", 1))
    up = _ratios(shapes, ("decoder.block.{}.conv_t1", 0), ("decoder.model.{}.block.1", 1))
    first, last = _shape(shapes, "encoder.conv1", "encoder.block.0"), _shape(shapes, "decoder.conv1", "decoder.model.0")
    table = shapes.get("quantizer.quantizers.0.codebook.weight", ())
    count = sum(name.startswith("quantizer.quantizers.") and name.endswith(".codebook.weight") for name in shapes)
    if not down or not up or len(first) != 3 or len(last) != 3 or len(table) != 2 or count not in _RATES:
        return None
    return {
        "architectures": ["DacModel"],
        "model_type": "dac",
        "encoder_hidden_size": first[0],
        "downsampling_ratios": down,
        "decoder_hidden_size": last[0],
        "upsampling_ratios": up,
        "hidden_size": last[1],
        "n_codebooks": count,
        "codebook_size": table[0],
        "codebook_dim": table[1],
        "sampling_rate": _RATES[count],
    }


def _ratios(shapes: Shapes, *layouts: tuple[str, int]) -> list[int]:
    """Half the taps of each block's convolution; a layout is how they are called, and the number of the first."""
    for path, start in layouts:
        found = [_shape(shapes, path.format(start + index)) for index in range(MOST_BLOCKS)]
        ratios = [shape[2] // 2 for shape in found if len(shape) == 3]
        if ratios:
            return ratios
    return []


def _shape(shapes: Shapes, *paths: str) -> tuple[int, ...]:
    """The shape of the first convolution that is there; nothing where none is."""
    return next((shapes[f"{path}.{kind}"] for path in paths for kind in _WEIGHTS if f"{path}.{kind}" in shapes), ())
