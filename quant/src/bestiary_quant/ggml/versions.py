"""The marks and versions of the format, and what the types of a file mean in each of them.

    mark  version  vocabulary   tensors     numbers in blocks
    ggml  none     texts        packed      float32 scales, 4-bit numbers in pairs
    ggmf  1        with scores  packed      the same
    ggjt  1        with scores  aligned 32  the same, later also Q5 with 16-bit scales and Q8_0
    ggjt  2        with scores  aligned 32  numbers of 4 and 5 bits in halves, as today; Q4 and Q8_0 have float32 scales
    ggjt  3        with scores  aligned 32  16-bit scales: the types of today; later also the k-quants

Sources: `llama_file_version` and the loader of llama.cpp before August 2023 (llama.cpp, llama-util.h); the pull
requests https://github.com/ggml-org/llama.cpp/pull/1405 (version 2) and /pull/1508 (version 3); what
convert_llama_ggml_to_gguf.py accepts; candle-core/src/quantized/ggml_file.rs.  Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bestiary_quant.blocks.types import TYPES, BlockType

PAIRED = 2
"""Files below this version of ggjt, and all others, keep numbers 2i and 2i + 1 of a block in one byte."""


@dataclass(frozen=True)
class Version:
    """One version of the format."""

    mark: str
    number: int
    types: Mapping[int, BlockType]
    """By the number in the file, as the blocks are once their numbers are in halves."""

    @property
    def scored(self) -> bool:
        """Whether every token has a score."""
        return self.mark != "ggml"

    @property
    def alignment(self) -> int:
        """Of the data of each tensor, counted from the beginning of the file."""
        return 32 if self.mark == "ggjt" else 1

    @property
    def paired(self) -> bool:
        """Whether a byte holds two neighbours, and not numbers that lie half a block apart."""
        return self.mark != "ggjt" or self.number < PAIRED

    def __str__(self) -> str:
        return f"{self.mark} {self.number}" if self.number else f"{self.mark} without a version"


def _former(name: str, code: int, length: int, nbytes: int) -> BlockType:
    # Numbers below zero: GGUF has none for these types, so that writing one fails.
    return BlockType(name, code, length, nbytes, decode=f"bestiary_quant.ggml.blocks:{name.lower()}")


Q4_0_F32 = _former("Q4_0_F32", -1, 32, 20)
Q4_1_F32 = _former("Q4_1_F32", -2, 32, 24)
Q8_0_F32 = _former("Q8_0_F32", -3, 32, 36)
Q4_2 = _former("Q4_2", -4, 16, 10)
Q4_3 = _former("Q4_3", -5, 16, 12)

PLAIN = {0: TYPES[0], 1: TYPES[1]}
FIVE = {6: TYPES[6], 7: TYPES[7]}
FLOAT32_SCALES = {2: Q4_0_F32, 3: Q4_1_F32, 8: Q8_0_F32}
SECOND: Mapping[int, BlockType] = MappingProxyType({**PLAIN, **FLOAT32_SCALES, **FIVE})
FIRST: Mapping[int, BlockType] = MappingProxyType({**SECOND, 4: Q4_2, 5: Q4_3})
THIRD: Mapping[int, BlockType] = MappingProxyType({code: TYPES[code] for code in (0, 1, 2, 3, 6, 7, 8, *range(10, 15))})

VERSIONS = (
    Version("ggml", 0, FIRST),
    Version("ggmf", 1, FIRST),
    Version("ggjt", 1, FIRST),
    Version("ggjt", 2, SECOND),
    Version("ggjt", 3, THIRD),
)
MARKS: Mapping[bytes, str] = MappingProxyType({b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt"})
"""By the first four bytes of a file: a number in four letters, its lowest byte first."""
NIBBLES: Mapping[BlockType, int] = MappingProxyType(
    {Q4_0_F32: 4, Q4_1_F32: 8, Q4_2: 2, Q4_3: 4, TYPES[6]: 6, TYPES[7]: 8}
)
"""Where the 4-bit numbers of a block begin, which go on to its end, of the types that a paired file may have."""
