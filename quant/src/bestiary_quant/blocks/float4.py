"""Four-bit floats: sign, two bits of exponent, one of mantissa (0, 0.5, 1, 1.5, 2, 3, 4, 6), with shared scales.

    MXFP4  a power of two for 32 numbers, 32 x 4 bits (OCP Microscaling Formats 1.0; `block_mxfp4` of ggml-common.h)
    NVFP4  4 scales of 8 bits for 16 numbers each, 64 x 4 bits (NVIDIA Blackwell; `block_nvfp4` of ggml-common.h)

The table holds the numbers doubled and the scales are halved, as in ggml, so that both are exact in few bits.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from bestiary_quant.blocks.fields import nibbles

_DOUBLED = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def mxfp4(blocks: torch.Tensor) -> torch.Tensor:
    scales = _table("power", blocks.device)[blocks[:, :1].int()]
    return _table("number", blocks.device)[nibbles(blocks[:, 1:], 16).int()] * scales


def nvfp4(blocks: torch.Tensor) -> torch.Tensor:
    scales = _table("scale", blocks.device)[blocks[:, :4].int()]
    numbers = _table("number", blocks.device)[nibbles(blocks[:, 4:], 8).int()]
    return (numbers.view(-1, 4, 16) * scales[..., None]).flatten(1)


@lru_cache(maxsize=32)
def _table(name: str, device: torch.device) -> torch.Tensor:
    values = {
        "number": _DOUBLED,
        # E8M0, half of 2^(e - 127); the lowest two are below the normal numbers of float32.
        "power": tuple(2.0 ** (code - 128) for code in range(256)),
        "scale": tuple(_ue4m3(code) / 2 for code in range(256)),
    }[name]
    return torch.tensor(values, dtype=torch.float32, device=device)


def _ue4m3(code: int) -> float:
    """Four bits of exponent and three of mantissa; bit 7 does not count, and 0x7F, which is no number, means zero."""
    exponent, mantissa = code >> 3 & 15, code & 7
    if code == 0x7F:
        return 0.0
    return mantissa * 2.0**-9 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
