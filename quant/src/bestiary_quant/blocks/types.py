"""Every type that a tensor of a GGUF file may have: its number in the file, the size of its blocks, and who decodes it.

Numbers and sizes are those of `enum ggml_type` and the structs of ggml-common.h (https://github.com/ggml-org/ggml).
Nothing here imports torch, so that a header can be judged before anything heavy happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class BlockType:
    """One type: every `length` numbers of a row take `nbytes` bytes."""

    name: str
    code: int
    """The number of the type in a file."""
    length: int
    nbytes: int
    dtype: str | None = None
    """The torch type of numbers that are stored plainly, one by one."""
    decode: str | None = None
    """"module:function" from blocks [N, nbytes] uint8 to numbers [N, length] float32, for all others."""

    @property
    def packed(self) -> bool:
        return self.decode is not None

    def row(self, columns: int) -> int:
        """Bytes of a row of so many numbers, which must be whole blocks."""
        return columns // self.length * self.nbytes


def _plain(name: str, code: int, nbytes: int, dtype: str) -> BlockType:
    return BlockType(name, code, 1, nbytes, dtype=dtype)


def _packed(name: str, code: int, length: int, nbytes: int, module: str) -> BlockType:
    return BlockType(name, code, length, nbytes, decode=f"bestiary_quant.blocks.{module}:{name.lower()}")


TYPES: Mapping[int, BlockType] = MappingProxyType(
    {
        kind.code: kind
        for kind in (
            _plain("F32", 0, 4, "float32"),
            _plain("F16", 1, 2, "float16"),
            _packed("Q4_0", 2, 32, 18, "simple"),
            _packed("Q4_1", 3, 32, 20, "simple"),
            _packed("Q5_0", 6, 32, 22, "simple"),
            _packed("Q5_1", 7, 32, 24, "simple"),
            _packed("Q8_0", 8, 32, 34, "simple"),
            _packed("Q8_1", 9, 32, 36, "simple"),
            _packed("Q2_K", 10, 256, 84, "kquants"),
            _packed("Q3_K", 11, 256, 110, "kquants"),
            _packed("Q4_K", 12, 256, 144, "kquants"),
            _packed("Q5_K", 13, 256, 176, "kquants"),
            _packed("Q6_K", 14, 256, 210, "kquants"),
            _packed("Q8_K", 15, 256, 292, "kquants"),
            _packed("IQ2_XXS", 16, 256, 66, "iq2"),
            _packed("IQ2_XS", 17, 256, 74, "iq2"),
            _packed("IQ3_XXS", 18, 256, 98, "iq3"),
            _packed("IQ1_S", 19, 256, 50, "iq1"),
            _packed("IQ4_NL", 20, 32, 18, "iq4"),
            _packed("IQ3_S", 21, 256, 110, "iq3"),
            _packed("IQ2_S", 22, 256, 82, "iq2"),
            _packed("IQ4_XS", 23, 256, 136, "iq4"),
            _plain("I8", 24, 1, "int8"),
            _plain("I16", 25, 2, "int16"),
            _plain("I32", 26, 4, "int32"),
            _plain("I64", 27, 8, "int64"),
            _plain("F64", 28, 8, "float64"),
            _packed("IQ1_M", 29, 256, 56, "iq1"),
            _plain("BF16", 30, 2, "bfloat16"),
            _packed("TQ1_0", 34, 256, 54, "ternary"),
            _packed("TQ2_0", 35, 256, 66, "ternary"),
            _packed("MXFP4", 39, 32, 17, "float4"),
            _packed("NVFP4", 40, 64, 36, "float4"),
            _packed("Q1_0", 41, 128, 18, "simple"),
        )
    }
)
"""By number.  Q8_1 and Q8_K are what ggml makes of activations; no published file holds them."""

REMOVED = frozenset({4, 5, 31, 32, 33, 36, 37, 38})
"""Numbers of types that ggml once had (Q4_2, Q4_3, and Q4_0 and IQ4_NL rearranged for single processors)."""
