"""Random blocks of ggml types in place of quantised weights."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from bestiary.pulling import Puller
from bestiary.records import Packing
from bestiary_quant.blocks.types import BlockType
from bestiary_quant.making.schemes import SCHEMES
from bestiary_quant.packed import PackedMatrix

DEVIATION = 0.02
_SIGN = 0x80
_SIGNED = ("Q4_0", "Q8_0", "Q6_K")
"""Types whose scale may be negative, and is in half of the blocks: their integers reach further down than up."""
_SCALES: Mapping[str, tuple[tuple[int, float], ...]] = {
    # Where a block has scales in float16, and what they are for numbers of deviation 1 where all else is random.
    "Q4_0": ((0, 1 / 4.61),),
    "Q8_0": ((0, 1 / 73.9),),
    "Q4_K": ((0, 1 / 258), (2, 7.5 / 258)),
    "Q6_K": ((208, 1 / 1366),),
}


def random_blocks(kind: BlockType, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Valid blocks [out, row bytes] uint8 of numbers of mean 0 and deviation 0.02."""
    made = numpy.random.default_rng(seed)
    count = shape[0] * shape[1] // kind.length
    blocks = numpy.frombuffer(bytearray(made.bytes(count * kind.nbytes)), numpy.uint8).reshape(count, kind.nbytes)
    for place, scale in _SCALES[kind.name]:
        blocks[:, place : place + 2] = numpy.frombuffer(numpy.float16(scale * DEVIATION).tobytes(), numpy.uint8)
        if kind.name in _SIGNED:
            blocks[:, place + 1] |= made.integers(2, size=count, dtype=numpy.uint8) * numpy.uint8(_SIGN)
    return torch.from_numpy(blocks.reshape(shape[0], -1))


@dataclass(frozen=True)
class RandomBlocks:
    """A `PackingPlan` that makes up what another one would compute."""

    assigned: Mapping[str, Packing]

    def weights(self, puller: Puller) -> Iterator[tuple[str, Any]]:
        for name in puller.names:
            packing = self.assigned.get(name)
            kind = SCHEMES[packing.scheme].kind if packing is not None and packing.scheme is not None else None
            if kind is None:
                yield name, puller.plain(name)
            else:
                yield name, PackedMatrix(random_blocks(kind, puller.shape(name), zlib.crc32(name.encode())), kind)
            puller.release()
