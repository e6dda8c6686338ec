"""The packed types that panels may have, in the order of `layouts.h`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

PANEL = 16
"""Rows of a panel."""


@dataclass(frozen=True)
class PanelType:
    """One packed type: `columns` numbers of a row take `nbytes` bytes."""

    name: str
    number: int
    columns: int
    nbytes: int
    head: int = 0
    """Bytes for each row before its blocks."""
    scaled: bool = False
    """Whether scales and addends, two float32 for each group of columns, stand behind the blocks."""

    def panel(self, columns: int, group: int = 0) -> int:
        """Bytes of a panel of rows of so many columns, `group` of which share a scale where the type is scaled."""
        tail = columns // group * 8 if self.scaled else 0
        return PANEL * (self.head + columns // self.columns * self.nbytes + tail)


_SIZES = (
    ("Q4_0", 32, 18),
    ("Q4_1", 32, 20),
    ("Q5_0", 32, 22),
    ("Q5_1", 32, 24),
    ("Q8_0", 32, 34),
    ("Q2_K", 256, 84),
    ("Q3_K", 256, 110),
    ("Q4_K", 256, 144),
    ("Q5_K", 256, 176),
    ("Q6_K", 256, 210),
    ("IQ4_NL", 32, 18),
    ("IQ4_XS", 256, 136),
    ("MXFP4", 32, 17),
)

BLOCKS: Mapping[str, PanelType] = MappingProxyType(
    {name: PanelType(name, number, columns, nbytes) for number, (name, columns, nbytes) in enumerate(_SIZES)}
)
"""Types whose rows are blocks as GGUF files have them, by their names there."""

INT8 = PanelType("INT8", len(_SIZES), 32, 32, head=4)
INT4 = PanelType("INT4", len(_SIZES) + 1, 32, 16, scaled=True)


def numbered(number: int) -> PanelType:
    """The type of a number."""
    return _NUMBERED[number]


_NUMBERED = (*BLOCKS.values(), INT8, INT4)
