"""Which pipelines make room for another."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Resident:
    """One model's part of the budget."""

    name: str
    nbytes: int
    used: float
    """When it was last used: a smaller number is longer ago."""
    idle: bool
    """Whether it may be closed now."""


def make_room(needed: int, budget: int, residents: Iterable[Resident]) -> tuple[str, ...] | None:
    """The models to close so that `needed` bytes fit, the least recently used first; None where that is not enough."""
    taken = list(residents)
    room = budget - sum(resident.nbytes for resident in taken)
    closed: list[Resident] = []
    for resident in sorted((resident for resident in taken if resident.idle), key=lambda resident: resident.used):
        if room >= needed:
            break
        closed.append(resident)
        room += resident.nbytes
    if room < needed:
        return None
    # A large one that goes may make it needless that smaller ones, less recently used, go too.
    for resident in reversed(closed[:-1]):
        if room - resident.nbytes >= needed:
            closed.remove(resident)
            room -= resident.nbytes
    return tuple(resident.name for resident in closed)
