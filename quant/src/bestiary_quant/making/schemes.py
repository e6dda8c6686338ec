"""Every scheme by which a weight can be quantised: how it is called, what it takes, and who makes it.

Nothing here imports torch, so that the names can be listed and judged before anything heavy happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bestiary.errors import OptionError, shown
from bestiary.nearest import did_you_mean
from bestiary_quant.blocks.types import TYPES, BlockType

HALF = 65504.0
"""The largest 16-bit float: types whose scales are such floats hold no number beyond it."""
F8Q8 = BlockType("F8Q8", -1, 32, 33, decode="bestiary_quant.making.f8q8:decode")
"""Blocks of mistral.rs; not a type of GGUF, hence without a number there."""


@dataclass(frozen=True)
class Scheme:
    """One scheme."""

    name: str
    make: str
    """"module:function" (rows [R, in] float32, importance [in] or None) -> blocks [N, bytes] uint8 where there is a
    `kind`, else (weight [out, in]) -> `bestiary_quant.checkpoints.coded.CodedMatrix`."""
    block: int
    """Columns must be a multiple of it."""
    bits: float
    """Bits that a number takes, with its share of the scales, in a large weight."""
    kind: BlockType | None = None
    weighs: bool = False
    """Whether it makes use of importance."""
    largest: float | None = None
    """It holds no number farther from zero."""
    instead: str | None = None
    """The scheme for rows that are no whole blocks of this one (`tensor_type_fallback` of llama.cpp)."""
    sensitive: str | None = None
    """The scheme for embeddings and output heads where the rest of a model has this one (as in mistral.rs)."""
    aliases: tuple[str, ...] = ()
    options: Mapping[str, int] = field(default_factory=dict)
    """Further arguments of `make`."""


_KINDS = {kind.name.lower(): kind for kind in TYPES.values()} | {"f8q8": F8Q8}


def _blocks(
    name: str,
    module: str,
    *,
    ggml: str = "",
    weighs: bool = False,
    largest: float | None = HALF,
    instead: str | None = None,
    sensitive: str | None = None,
) -> Scheme:
    ggml = ggml or name
    kind = _KINDS[ggml]
    return Scheme(
        name,
        f"bestiary_quant.making.{module}:{ggml}",
        kind.length,
        kind.nbytes * 8 / kind.length,
        kind=kind,
        weighs=weighs,
        largest=largest,
        instead=instead,
        sensitive=sensitive,
        aliases=(ggml,) if ggml != name else (),
    )


def _coded(name: str, function: str, block: int, bits: float, sensitive: str | None = None, *aliases: str) -> Scheme:
    options = {"bits": int(name[-1])} if name.startswith(("afq", "hqq")) else {}
    make = f"bestiary_quant.making.{function}"
    return Scheme(name, make, block, bits, sensitive=sensitive, aliases=aliases, options=options)


SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        scheme.name: scheme
        for scheme in (
            _blocks("q4_0", "simple", weighs=True, sensitive="q6k"),
            _blocks("q4_1", "simple", weighs=True, sensitive="q6k"),
            _blocks("q5_0", "simple", weighs=True, sensitive="q8_0"),
            _blocks("q5_1", "simple", weighs=True, sensitive="q8_0"),
            _blocks("q8_0", "simple"),
            _blocks("q8_1", "simple", sensitive="q8_0"),
            _blocks("q2k", "kquants", ggml="q2_k", weighs=True, instead="q4_0", sensitive="q6k"),
            _blocks("q3k", "kquants", ggml="q3_k", weighs=True, instead="q4_0", sensitive="q6k"),
            _blocks("q4k", "kquants", ggml="q4_k", weighs=True, instead="q5_0", sensitive="q6k"),
            _blocks("q5k", "kquants", ggml="q5_k", weighs=True, instead="q5_1", sensitive="q8_0"),
            _blocks("q6k", "kquants", ggml="q6_k", weighs=True, instead="q8_0", sensitive="q8_0"),
            _blocks("q8k", "kquants", ggml="q8_k", largest=None, instead="q8_0", sensitive="q8_0"),
            _blocks("iq4_nl", "iq4", weighs=True, sensitive="q6k"),
            _blocks("iq4_xs", "iq4", weighs=True, instead="iq4_nl", sensitive="q6k"),
            _blocks("mxfp4", "float4", largest=None),
            _blocks("tq1_0", "ternary", instead="q4_0", sensitive="q6k"),
            _blocks("tq2_0", "ternary", instead="q4_0", sensitive="q6k"),
            _blocks("f8q8", "f8q8", largest=127.0),
            _coded("afq2", "affine:afq", 32, 2.5, "afq6"),
            _coded("afq3", "affine:afq", 32, 3.5, "afq6"),
            _coded("afq4", "affine:afq", 32, 4.5, "afq6"),
            _coded("afq6", "affine:afq", 32, 6.5, "afq8"),
            _coded("afq8", "affine:afq", 32, 9.0),
            _coded("hqq4", "hqq:hqq", 64, 4.5),
            _coded("hqq8", "hqq:hqq", 64, 9.0),
            _coded("fp8", "float8:fp8", 1, 8.0, None, "f8e4m3", "fp8_e4m3"),
            _coded("fp8_blocks", "float8:fp8_blocks", 1, 8.0),
            _coded("int8", "int8:int8", 1, 8.0),
        )
    }
)
"""By name, spelled as mistral.rs does; `find` also takes the names of ggml ("q4_k") and any case."""

BITS: Mapping[int, str] = MappingProxyType({2: "q2k", 3: "q3k", 4: "q4k", 5: "q5k", 6: "q6k", 8: "q8_0"})
"""The scheme for a number of bits on a processor or with CUDA."""
METAL_BITS: Mapping[int, str] = MappingProxyType({2: "afq2", 3: "afq3", 4: "afq4", 6: "afq6", 8: "afq8"})
"""The same on Apple's GPUs, where five bits are those of a processor."""

ALIASES: Mapping[str, Scheme] = MappingProxyType(
    {alias: scheme for scheme in SCHEMES.values() for alias in (scheme.name, *scheme.aliases)}
)
"""Schemes by all their names."""


def find(name: str) -> Scheme:
    """The scheme of a name or a number of bits ("q4k", "Q4_K", "4").  Raises OptionError for any other."""
    key = name.strip().lower() if isinstance(name, str) else ""
    if key.isdecimal() and len(key) == 1 and int(key) in BITS:
        key = BITS[int(key)]
    if key not in ALIASES:
        raise OptionError(
            f"There is no quantization {shown(name)}. {did_you_mean(key, ALIASES)}".rstrip(),
            fix=f"one of {', '.join(SCHEMES)}; or a number of bits: {', '.join(map(str, BITS))}",
        )
    return ALIASES[key]


def for_memory(numbers: int, available: int) -> str | None:
    """The scheme of most bits in which so many numbers take at most `available` bytes; None if no scheme is that small.

    This is what `auto` means; what else needs memory, such as a cache, is not in `available`.
    """
    fitting = [name for _, name in sorted(BITS.items()) if numbers * SCHEMES[name].bits <= available * 8]
    return fitting[-1] if fitting else None


def promoted(scheme: Scheme) -> Scheme:
    """The scheme of embeddings and output heads in a model whose other weights have this one."""
    return SCHEMES[scheme.sensitive] if scheme.sensitive else scheme
