"""Limits of the adapters of a model, and what is shown of those that are loaded."""

from __future__ import annotations

from dataclasses import dataclass

from bestiary.adapters.peft import MOST_BYTES, MOST_RANK


@dataclass(frozen=True)
class AdapterLimits:
    """Of one model; `bytes` count what lies on its device, generations that are only finished included."""

    count: int = 16
    rank: int = MOST_RANK
    bytes: int = MOST_BYTES


@dataclass(frozen=True)
class AdapterInfo:
    """An adapter that requests can name."""

    alias: str
    source: str
    """The id or folder that it was read from."""
    revision: str | None
    generation: int
    rank: int
    bytes: int

    @property
    def exact(self) -> str:
        """The name of this generation, which never means another one."""
        return f"{self.alias}@{self.generation}"


@dataclass(frozen=True)
class GenerationInfo:
    """A generation whose weights are on the device."""

    generation: int
    alias: str
    rank: int
    bytes: int
    retired: bool
    """No new request can name it; it stays for those that run."""
    leases: int


@dataclass(frozen=True)
class AdapterStatus:
    """All of them at one moment."""

    adapters: tuple[AdapterInfo, ...]
    generations: tuple[GenerationInfo, ...]
    limits: AdapterLimits

    @property
    def bytes(self) -> int:
        return sum(generation.bytes for generation in self.generations)

    @property
    def retired(self) -> int:
        """How many generations are retired."""
        return sum(generation.retired for generation in self.generations)
