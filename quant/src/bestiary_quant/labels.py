"""What the names of weight files say of their type, and which of them a user means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

USUAL: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "2": ("q2_k", "q2_k_s", "iq2_m", "iq2_s", "iq2_xs"),
        "3": ("q3_k_m", "q3_k_l", "q3_k_s", "iq3_m", "iq3_s", "iq3_xs"),
        "4": ("q4_k_m", "q4_k_s", "iq4_xs", "iq4_nl", "q4_0", "q4_1"),
        "5": ("q5_k_m", "q5_k_s", "q5_0", "q5_1"),
        "6": ("q6_k",),
        "8": ("q8_0",),
    }
)
"""Types of files by bits, the usual first."""


def says(name: str, wanted: str) -> bool:
    """Whether `wanted` is a part of a name between its separators, in any case."""
    place = re.escape(wanted.lower())
    return re.search(rf"(?<![a-z0-9_]){place}(?![a-z0-9_])", name.lower()) is not None


def by_bits(wanted: str, labels: Sequence[str]) -> int | None:
    """The place of the usual type of so many bits, where one file alone has it."""
    usual = next((kind for kind in USUAL.get(wanted, ()) if labels.count(kind) == 1), None)
    return None if usual is None else labels.index(usual)
