"""Which schemes GGUF files can hold, and the number by which a file says what most of it is.

Numbers of `enum llama_ftype` (llama.cpp, include/llama.h).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from bestiary.errors import OptionError, shown
from bestiary.nearest import did_you_mean
from bestiary_quant.blocks.types import BlockType
from bestiary_quant.making.mixtures import MIXTURES
from bestiary_quant.making.schemes import SCHEMES, find

PLAIN = ("f32", "f16", "bf16")
_NUMBERS: Mapping[str, int] = MappingProxyType(
    {
        "f32": 0,
        "f16": 1,
        "q4_0": 2,
        "q4_1": 3,
        "q8_0": 7,
        "q5_0": 8,
        "q5_1": 9,
        "q2k": 10,
        "q3k": 11,
        "q3_k_s": 11,
        "q3_k_m": 12,
        "q3_k_l": 13,
        "q4k": 14,
        "q4_k_s": 14,
        "q4_k_m": 15,
        "q5k": 16,
        "q5_k_s": 16,
        "q5_k_m": 17,
        "q6k": 18,
        "q2_k_s": 21,
        "iq4_nl": 25,
        "iq4_xs": 30,
        "bf16": 32,
        "tq1_0": 36,
        "tq2_0": 37,
        "mxfp4": 38,
    }
)
_OF_TYPES = {
    kind.name: number for name, number in _NUMBERS.items() if name in SCHEMES and (kind := SCHEMES[name].kind)
} | {"F32": 0, "F16": 1, "BF16": 32}
GUESSED = 1024
"""`LLAMA_FTYPE_GUESSED`: not stated."""


def known_scheme(name: str) -> str:
    """The name of a scheme or mixture of GGUF as this package spells it.  Raises OptionError for any other."""
    key = name.strip().lower()
    if key in MIXTURES or key in PLAIN:
        return key
    fix = f"one of {', '.join(sorted(_NUMBERS))}"
    try:
        key = find(name).name
    except OptionError as error:
        hint = did_you_mean(key, _NUMBERS)
        raise OptionError(f"GGUF files hold nothing called {shown(name)}. {hint}".rstrip(), fix=fix) from error
    if key not in _NUMBERS:
        raise OptionError(f"GGUF files do not hold weights of the scheme {key}.", fix=fix)
    return key


def file_type(scheme: str | None, written: Counter[BlockType]) -> int:
    """`general.file_type`: of what was asked for by name, else of the type that most bytes have."""
    if scheme is not None and scheme in _NUMBERS:
        return _NUMBERS[scheme]
    most = written.most_common(1)
    return _OF_TYPES.get(most[0][0].name, GUESSED) if most else GUESSED
