"""What the names of weight files say of their type, and which of them a user means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from bestiary.errors import CheckpointError
from bestiary.nearest import did_you_mean

MOST_LISTED = 20
"""Models that a message names."""
MOST_COMPARED = 1000
"""Labels among which the nearest is looked for."""

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


def undecided(
    found: Sequence[tuple[str, int]], named: Sequence[tuple[str, int]], wanted: str | None, origin: str
) -> CheckpointError:
    """That of the models here, by label and bytes, none or several are what a user wants; it lists those."""
    some = (named or found)[:MOST_LISTED]
    listed = "; ".join(f"{label} ({nbytes / 1e9:.2f} GB)" for label, nbytes in some)
    if wanted is None:
        what, fix = f"{len(named)} models lie here: {listed}.", "choose one of them"
    elif named:
        what, fix = f'"{wanted[:100]}" is in the names of {len(named)} models: {listed}.', "write more of the name"
    else:
        what = f'No file is called "{wanted[:100]}". There are: {listed}.'
        near = did_you_mean(wanted[:100].lower(), [label for label, _ in found[:MOST_COMPARED]])
        fix = near or "choose one of them"
    return CheckpointError(what, where=origin, fix=fix)
