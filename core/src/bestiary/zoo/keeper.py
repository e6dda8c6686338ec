"""Lending pipelines, and closing them when they are not wanted any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count

from bestiary.errors import RequestError
from bestiary.zoo.holdings import Holdings
from bestiary.zoo.idle import IdleWatch
from bestiary.zoo.lease import Token
from bestiary.zoo.ledger import seconds_left
from bestiary.zoo.pipeline import requests
from bestiary.zoo.slot import Ask, Slot, this_owner

_POLL = 0.1
"""Seconds between looks at a pipeline that runs requests without a lease: it tells nobody when they end."""
_leases = count()


@dataclass(frozen=True)
class _Wait:
    """For a change, at most so long."""

    seconds: float | None


class Keeper:
    """Whoever comes first for a model estimates, makes room and loads; the others wait for it, each for its own."""

    def __init__(self, holdings: Holdings) -> None:
        self.holdings = holdings
        self._ledger = holdings.ledger
        self._closed = False
        self._watch = IdleWatch(self)

    def add(self, slot: Slot) -> None:
        with self.holdings.locked():
            self._check_open(slot)
            self._ledger.slots.append(slot)

    # Leases

    def acquire(self, slot: Slot, wait: float) -> Token:
        """A lease, once the model is ready.  Raises what its load raised, or OutOfMemory after `wait` seconds."""
        with self._asking(Ask(slot, wait)) as ask:
            while True:
                with self.holdings.locked() as changes:
                    step = self._step(ask)
                    if isinstance(step, _Wait):
                        changes.wait(step.seconds)
                        continue
                if isinstance(step, Token):
                    return step
                self._work(ask)

    async def acquire_async(self, slot: Slot, wait: float) -> Token:
        """`acquire` without blocking the event loop, and without a thread while it waits."""
        with self._asking(Ask(slot, wait)) as ask:
            while True:
                with self.holdings.locked() as changes:
                    step, seen = self._step(ask), changes.count
                if isinstance(step, Token):
                    return step
                if isinstance(step, _Wait):
                    await changes.after(seen, step.seconds)
                else:
                    await asyncio.to_thread(self._work, ask)

    def _step(self, ask: Ask) -> Token | _Wait | None:
        """What a caller does next: go with its lease, wait, or (None) work."""
        slot, waited = ask.slot, ask.attempt
        ask.attempt = None
        if waited is not None and waited.error is not None:
            raise waited.error
        self._check_open(slot)
        if slot.attempt is not None:
            if slot.attempt.owner == ask.owner:
                raise RequestError(f'"{slot.name}" was asked for by what is loading or closing it.')
            ask.attempt = slot.attempt
            return _Wait(None)
        if slot.pipe is not None:
            return _Wait(seconds_left(ask)) if self._ledger.holds_back(ask) else self._lend(ask)
        if slot.estimate is None or self._ledger.plan(ask) is not None:
            return None
        seconds = min(seconds_left(ask), _POLL) if ask.running else seconds_left(ask)
        ask.running = frozenset()
        return _Wait(seconds)

    def _lend(self, ask: Ask) -> Token:
        slot, number = ask.slot, next(_leases)
        slot.leases[number] = ask.owner
        slot.touch()
        return Token(slot.pipe, partial(self._take_back, slot, number))

    def _take_back(self, slot: Slot, number: int) -> None:
        with self.holdings.locked() as changes:
            if slot.leases.pop(number, None) is not None:
                slot.touch()
                changes.tell()

    def _work(self, ask: Ask) -> None:
        """Estimate, or make room and load, unless somebody else does; what goes wrong is told by the attempt."""
        slot, holdings = ask.slot, self.holdings
        with holdings.locked():
            if not self._is_free(slot):
                return
            if slot.estimate is None:
                sizing = ask.attempt = holdings.begin(slot, "loading")
                planned = None
            else:
                sizing, planned = None, self._ledger.plan(ask)
        if sizing is not None:
            holdings.size_up(slot, sizing)
        if planned is None:
            return
        running = frozenset(victim for victim in planned if any(requests(victim.pipe)))
        with holdings.locked():
            ask.running |= running
            if not self._is_free(slot) or self._ledger.plan(ask) != planned:
                return  # the next step sees how things stand now
            filling = ask.attempt = holdings.begin(slot, "loading")
            ask.wanted, slot.nbytes = frozenset(), slot.needed
            closings = [(victim, holdings.begin(victim, "closing")) for victim in planned]
        holdings.fill(slot, filling, closings)
        if slot.entry.idle is not None:
            self._watch.wake()

    # Closing

    def unload(self, slot: Slot, wait: float, *, now: bool = False, remove: bool = False, forget: bool = False) -> None:
        """Close a model when its leases have ended; `now` does not wait.  RequestError after `wait` seconds.

        `remove` gives it up for ever; `forget` gives up what was learned of its size.
        """
        with self._asking(Ask(slot, wait, wanted=frozenset((slot,)))) as ask:
            while True:
                with self.holdings.locked() as changes:
                    self._check_open(slot)
                    if slot.attempt is not None or (slot.leases and not now):
                        changes.wait(self._patience(ask))
                        continue
                    if slot.pipe is None:
                        slot.removed, slot.error = remove, None
                        slot.estimate = None if forget else slot.estimate
                        if remove:
                            self._ledger.slots.remove(slot)
                        changes.tell()
                        return
                    pipe = slot.pipe
                running = not now and any(requests(pipe))
                with self.holdings.locked() as changes:
                    if running:
                        changes.wait(min(self._patience(ask) or _POLL, _POLL))
                    if running or slot.attempt is not None or slot.pipe is not pipe or (slot.leases and not now):
                        continue
                    closing = self.holdings.begin(slot, "closing")
                self.holdings.close(slot, closing)

    def _patience(self, ask: Ask) -> float | None:
        """How long to wait for the users of a model that is to be closed.  RequestError where that is over."""
        slot, own = ask.slot, f'"{ask.slot.name}" is to be closed by what uses it.'
        if slot.attempt is not None:
            if slot.attempt.owner == ask.owner:
                raise RequestError(own)
            return None
        if ask.owner in slot.leases.copy().values():
            raise RequestError(own, fix="end the lease first, or end all that runs with now=True")
        left = seconds_left(ask)
        if left <= 0:
            raise RequestError(
                f'"{slot.name}" is in use: what it runs did not end in {ask.patience:g} seconds.',
                fix="wait longer with wait=..., or end all that runs with now=True",
            )
        return left

    def close_idle(self) -> float | None:
        """Close what was idle for too long.  Seconds until the next one may be due; None: there is none."""
        due: list[Slot] = []
        next_due: list[float] = []
        with self.holdings.locked():
            for slot in self._ledger.slots:
                if slot.pipe is None or slot.attempt is not None or slot.entry.idle is None or slot.entry.pinned:
                    continue
                left = slot.entry.idle if slot.leases else slot.used + slot.entry.idle - time.monotonic()
                if left <= 0:
                    due.append(slot)
                else:
                    next_due.append(left)
        for slot in due:
            running = any(requests(slot.pipe))
            with self.holdings.locked():
                if running or slot.pipe is None or slot.attempt is not None or slot.leases:
                    next_due.append(_POLL)
                    continue
                closing = self.holdings.begin(slot, "closing")
            self.holdings.close(slot, closing)
        return min(next_due, default=None)

    def close(self) -> None:
        """Close everything, after the loads that are under way; later calls raise RequestError."""
        with self.holdings.locked() as changes:
            self._closed = True
            changes.tell()
        self._watch.stop()
        owner = this_owner()
        while True:
            with self.holdings.locked() as changes:
                closings = [
                    (slot, self.holdings.begin(slot, "closing"))
                    for slot in self._ledger.slots
                    if slot.pipe is not None and slot.attempt is None
                ]
                if not closings:
                    if all(slot.attempt is None or slot.attempt.owner == owner for slot in self._ledger.slots):
                        return
                    changes.wait(None)
            self.holdings.close_all(closings)

    # What all share

    def _is_free(self, slot: Slot) -> bool:
        return not (self._closed or slot.removed or slot.attempt is not None or slot.pipe is not None)

    def _check_open(self, slot: Slot) -> None:
        if self._closed:
            raise RequestError("The zoo is closed.", fix="make another one")
        if slot.removed:
            raise RequestError(f'The model "{slot.name}" was removed.')

    @contextmanager
    def _asking(self, ask: Ask) -> Iterator[Ask]:
        with self.holdings.locked():
            self._ledger.asks.append(ask)
        try:
            yield ask
        finally:
            with self.holdings.locked() as changes:
                if ask in self._ledger.asks:  # a fork forgets them
                    self._ledger.asks.remove(ask)
                if ask.wanted:
                    changes.tell()
