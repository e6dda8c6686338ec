"""The schemes that need a text: how they are called, and which weights they fit.

Nothing here imports torch, so that the names can be listed and judged before anything heavy happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

GROUPS = (128, 64, 32)
"""Columns that share a scale: the largest that divides a row; of AWQ, whose files have one, the largest for all."""


@dataclass(frozen=True)
class Method:
    """One scheme."""

    name: str
    kind: str
    """"gptq" or "awq"."""
    bits: int
    aliases: tuple[str, ...] = ()

    def group(self, columns: int, most: int = GROUPS[0]) -> int | None:
        """Columns of a group, at most so many; None for rows that are no whole groups, which stay plain."""
        return next((size for size in GROUPS if columns % size == 0 and size <= most), None)

    def nbytes(self, shape: tuple[int, ...]) -> int | None:
        """What a weight [..., in] takes: its codes, and a 16-bit scale and a zero of a byte for each group."""
        group = self.group(shape[-1])
        if group is None:
            return None
        rows = 1
        for size in shape[:-1]:
            rows *= size
        return rows * (shape[-1] * self.bits // 8 + shape[-1] // group * 3)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method("gptq2", "gptq", 2),
            Method("gptq3", "gptq", 3),
            Method("gptq4", "gptq", 4, ("gptq",)),
            Method("gptq8", "gptq", 8),
            Method("awq4", "awq", 4, ("awq",)),
        )
    }
)
"""By name."""
_BY_ALIAS: Mapping[str, Method] = {
    alias: method for method in METHODS.values() for alias in (method.name, *method.aliases)
}


METHOD_NAMES = tuple(_BY_ALIAS)
"""All that they are called."""


def method_of(scheme: str | None) -> Method | None:
    """The method of a name in any case; None for a scheme of `making.schemes`, which needs no text."""
    return None if scheme is None else _BY_ALIAS.get(scheme.strip().lower())
