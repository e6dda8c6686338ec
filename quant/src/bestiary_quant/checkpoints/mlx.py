"""MLX: whole numbers of 2, 3, 4, 5, 6 or 8 bits with a scale and an offset for each group of columns, and its floats.

    X.weight [.., out, in * bits / 32] uint32     X.scales [.., out, in / group]     X.biases, likewise (mode "affine")

The number is code * scale + bias.  In the modes "mxfp4", "mxfp8" and "nvfp4" scales are bytes and there are no biases.
`quantization` of config.json says group_size, bits and mode, and may say them again for a layer by its name.  From
`mx.quantize` (https://github.com/ml-explore/mlx, 0.32) and mlx-lm; transformers calls the offsets `qbiases` ("metal").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack, shaped
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.float4 import E2M1
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import FLOATS, Group, Stored

BITS = (2, 3, 4, 5, 6, 8)
_MODES = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
"""Bits and group of the modes that have no others."""


def groups(stored: Stored, settings: Settings) -> Iterator[Group]:
    """The packed weights.  Raises ConfigError for settings out of bounds, CheckpointError for tensors that disagree."""
    for prefix, _ in stored.before(".scales"):
        own = settings.values.get(prefix)
        if own is False:
            raise stored.error(f'{prefix}.scales is stored, and "{prefix}" of {settings.where} is false.')
        merged = {**settings.values, **(own if isinstance(own, dict) else {})}
        where = f'{settings.where}, "{prefix}"' if isinstance(own, dict) else settings.where
        yield _group(stored, Settings(merged, where), prefix)


def _group(stored: Stored, settings: Settings, prefix: str) -> Group:
    weight, scales = f"{prefix}.weight", f"{prefix}.scales"
    mode = settings.word("mode", of=("affine", *_MODES), default="affine")
    if mode in _MODES:
        bits, size = _MODES[mode]
        settings.number("bits", of=(bits,), default=bits)
        settings.number("group_size", of=(size,), default=size)
    else:
        bits, size = settings.number("bits", of=BITS, default=4), settings.group_size(64) or 0
        if size == 0:
            raise settings.error('"group_size" is -1; MLX has groups of a number of columns.')
    stored.dtype(weight, "U32")
    given, counts = stored.shape(weight, 2, 3), stored.shape(scales, 2, 3)
    columns = counts[-1] * size
    if given[:-1] != counts[:-1] or given[-1] * 32 != columns * bits:
        raise stored.error(
            f"{weight!r} of the shape {list(given)} and {scales!r} of {list(counts)} do not agree with {bits} bits in "
            f"groups of {size}, as {settings.where} says."
        )
    parts = {"codes": weight, "scales": scales}
    if mode == "affine":
        parts["offsets"] = stored.one_of([f"{prefix}.biases", f"{prefix}.qbiases"], weight, "biases")
        stored.dtype(scales, *FLOATS)
        stored.check(parts["offsets"], FLOATS, counts)
    else:
        stored.dtype(scales, "U8")
    shape = (*given[:-1], columns)

    def make(read: Callable[[str], torch.Tensor]) -> CodedMatrix | CodedStack:
        data = read("codes").reshape(-1, given[-1]).view(torch.uint8)
        held = read("scales").reshape(-1, counts[-1])
        if mode == "affine":
            codes = Codes(data, bits, columns)
            scaling = Scaling(held, size, offsets=read("offsets").reshape(-1, counts[-1]))
        else:
            codes = Codes(data, 4, columns, E2M1) if bits == 4 else Codes(data.view(torch.float8_e4m3fn), 8, columns)
            scaling = Scaling(held.view(torch.float8_e4m3fn if mode == "nvfp4" else torch.float8_e8m0fnu), size)
        return shaped(CodedMatrix(codes, scaling), shape)

    label = f"AFQ{bits}" if mode == "affine" else mode.upper()
    return Group(weight, label, shape, parts, make)
