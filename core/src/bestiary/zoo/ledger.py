"""Who takes how much of the budget, and who must go for whom.  Whoever calls it holds the keeper's lock."""

from __future__ import annotations

import time
from collections.abc import Callable

from bestiary.amount import written
from bestiary.errors import OutOfMemory
from bestiary.zoo.room import Resident, make_room
from bestiary.zoo.slot import Ask, Slot


class Ledger:
    """The models, the budget of each device, and the callers that wait for room."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.asks: list[Ask] = []
        self.budgets: dict[str, int] = {}

    def plan(self, ask: Ask) -> tuple[Slot, ...] | None:
        """The models to close for an estimated one; None where some of them are in use, and the caller waits for these.

        Raises OutOfMemory where waiting cannot help, or is over.
        """
        slot, budget = ask.slot, self.budgets[_device(ask.slot)]
        earlier = {wanted for other in self.asks if other.number < ask.number for wanted in other.wanted}
        kept = earlier | ask.running
        closed = make_room(slot.needed, budget, self._residents(slot, lambda other: _idle(other) and other not in kept))
        if closed is not None:
            return self._named(closed)
        # Those that were chosen once stay chosen, or a lease that ends would make its model the last in order again.
        wanted = make_room(slot.needed, budget, self._residents(slot, lambda other: other in ask.wanted))
        if wanted is None:
            wanted = make_room(slot.needed, budget, self._residents(slot, lambda other: not other.entry.pinned))
        if wanted is None:
            raise self._no_room(slot, "It would not fit even if everything that may be closed were closed.")
        ask.wanted = frozenset(self._named(wanted))
        if seconds_left(ask) <= 0:
            raise self._no_room(slot, f"What would have to go was in use for {ask.patience:g} seconds.")
        return None

    def excess(self, slot: Slot) -> tuple[Slot, ...] | None:
        """The models to close because a loaded one takes more than was estimated; None where that is not enough."""
        closed = make_room(slot.nbytes, self.budgets[_device(slot)], self._residents(slot, _idle))
        return None if closed is None else self._named(closed)

    def has_room(self, slot: Slot) -> bool:
        """Whether those that were closed for a model are gone."""
        device = _device(slot)
        taken = sum(other.nbytes for other in self.slots if other.resident and _device(other) == device)
        return taken + slot.nbytes <= self.budgets[device]

    def holds_back(self, ask: Ask) -> bool:
        """Whether a ready model is not lent to a newcomer, because an earlier caller waits for it to go.

        Whoever has a lease already is let pass, for others may be waiting for that one.
        """
        if not any(ask.slot in other.wanted for other in self.asks if other.number < ask.number):
            return False
        if any(ask.owner in slot.leases.copy().values() for slot in self.slots):
            return False
        return seconds_left(ask) > 0

    def _residents(self, slot: Slot, may_go: Callable[[Slot], bool]) -> list[Resident]:
        device = _device(slot)
        return [
            Resident(other.name, other.nbytes, other.used, may_go(other))
            for other in self.slots
            if other is not slot and other.nbytes and other.state != "closing" and _device(other) == device
        ]

    def _named(self, names: tuple[str, ...]) -> tuple[Slot, ...]:
        by_name = {slot.name: slot for slot in self.slots}
        return tuple(by_name[name] for name in names)

    def _no_room(self, slot: Slot, why: str) -> OutOfMemory:
        device = _device(slot)
        taken = [other for other in self.slots if other is not slot and other.nbytes and _device(other) == device]
        free = self.budgets[device] - sum(other.nbytes for other in taken)
        holders = "; ".join(f'"{other.name}" takes {written(other.nbytes)}, {_why_kept(other)}' for other in taken)
        return OutOfMemory(
            f'The model "{slot.name}" needs {written(slot.needed)}; of the budget of '
            f"{written(self.budgets[device])} on {device}, {written(max(0, free))} are free. {why}",
            where=holders or None,
            fix="a larger memory=..., unload(...) or a longer wait=...; for the model itself cache_tokens=..., "
            'quant=... or dtype="bfloat16"',
        )


def seconds_left(ask: Ask) -> float:
    """Of the caller's patience, which begins when it is first asked for."""
    if ask.deadline is None:
        ask.deadline = time.monotonic() + ask.patience
    return ask.deadline - time.monotonic()


def _device(slot: Slot) -> str:
    return slot.estimate.device if slot.estimate is not None else ""


def _idle(slot: Slot) -> bool:
    return slot.pipe is not None and slot.attempt is None and not slot.leases and not slot.entry.pinned


def _why_kept(slot: Slot) -> str:
    if slot.entry.pinned:
        return "pinned"
    if slot.leases:
        return f"lent to {len(slot.leases)}"
    return slot.state
