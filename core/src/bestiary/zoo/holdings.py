"""The models of a zoo and what is done to them: sizing one up, filling it with a pipeline, closing it.

The lock guards numbers only: nobody holds it while something is estimated, loaded, questioned or closed.  So it is held
for microseconds, and a stream that is collected in the middle of anything can give its lease back.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bestiary.errors import BestiaryError
from bestiary.zoo.changes import Changes
from bestiary.zoo.estimate import measured
from bestiary.zoo.ledger import Ledger
from bestiary.zoo.maker import Maker
from bestiary.zoo.pipeline import forget_frames, give_memory_back, requests, shut
from bestiary.zoo.slot import Attempt, Slot
from bestiary.zoo.status import ModelStatus

Closing = tuple[Slot, Attempt]


class Holdings:
    """Slots and their lock.  Who does something to a slot begins an attempt under the lock, and then has it alone."""

    def __init__(self, maker: Maker) -> None:
        self.ledger = Ledger()
        self.changes = Changes()
        self._maker = maker
        self._process = os.getpid()

    def locked(self) -> Changes:
        """The lock, for `with`."""
        if self._process != os.getpid():
            self._after_fork()
        return self.changes

    def begin(self, slot: Slot, state: str) -> Attempt:
        """Take a slot; the caller holds the lock and must have the attempt ended, whatever happens."""
        slot.attempt = Attempt(state)
        return slot.attempt

    # Each of these runs without the lock, and ends the attempt.

    def size_up(self, slot: Slot, attempt: Attempt) -> None:
        """Estimate what a model takes."""
        with self._ending(slot, attempt):
            estimate, budget = self._maker.size(slot.entry, self.ledger.budgets)
            with self.locked():
                slot.estimate, slot.needed = estimate, estimate.nbytes
                self.ledger.budgets.setdefault(estimate.device, budget)

    def fill(self, slot: Slot, attempt: Attempt, closings: list[Closing]) -> None:
        """Load a model whose room is reserved, when those are closed that make it.

        One that turns out to take more than there is room for is closed again; its `needed` is right from then on.
        """
        pipe = None
        with self._ending(slot, attempt):
            try:
                self.close_all(closings)
                with self.locked():
                    while not self.ledger.has_room(slot):
                        self.changes.wait(None)
                    slot.resident = True
                begin = time.monotonic()
                pipe = self._maker.make(slot.entry, slot.estimate)
                seconds = time.monotonic() - begin
                if not self._admit(slot, pipe):
                    shut(pipe)
                    pipe = None
                    give_memory_back()
            except BaseException:
                if pipe is not None:
                    shut(pipe)
                with self.locked():
                    slot.nbytes, slot.resident, slot.estimate = 0, False, None
                raise
            with self.locked():
                if pipe is None:
                    slot.nbytes, slot.resident = 0, False
                else:
                    slot.pipe, slot.seconds, slot.loads, slot.error = pipe, seconds, slot.loads + 1, None
                    slot.touch()

    def close(self, slot: Slot, attempt: Attempt) -> None:
        """Close a model's pipeline, with whatever it runs."""
        with self._ending(slot, attempt):
            try:
                shut(slot.pipe)
            finally:
                slot.pipe = None
                give_memory_back()
                with self.locked():
                    slot.nbytes, slot.resident = 0, False

    def close_all(self, closings: list[Closing]) -> None:
        """Close several, and empty the list."""
        try:
            while closings:
                self.close(*closings.pop())
        finally:
            for slot, attempt in closings:  # an interrupt came between; nobody holds these: they end by themselves
                with self._ending(slot, attempt):
                    slot.pipe = None
                    with self.locked():
                        slot.nbytes, slot.resident = 0, False

    def _admit(self, slot: Slot, pipe: Any) -> bool:
        """Correct the estimate, and close others where that exceeds the budget; False where even so it does not fit."""
        taken = slot.entry.memory or measured(pipe) or slot.needed
        with self.locked():
            slot.needed = slot.nbytes = taken
            excess = self.ledger.excess(slot)
            closings = [(victim, self.begin(victim, "closing")) for victim in excess or ()]
        self.close_all(closings)
        return excess is not None

    @contextmanager
    def _ending(self, slot: Slot, attempt: Attempt) -> Iterator[None]:
        """Whatever happens inside, those who wait for the attempt hear of it; its error is theirs."""
        try:
            yield
        except Exception as error:
            forget_frames(error)
            attempt.error = error
            slot.error = error.what if isinstance(error, BestiaryError) else repr(error)
        finally:
            with self.locked() as changes:
                slot.attempt = None
                changes.tell()

    # The rest

    def status(self) -> tuple[ModelStatus, ...]:
        """Of every model, in the order in which they were added."""
        with self.locked():
            pipes = {slot.name: slot.pipe for slot in self.ledger.slots}
        counts = {name: requests(pipe) for name, pipe in pipes.items()}
        with self.locked():
            return tuple(slot.status(*counts.get(slot.name, (0, 0))) for slot in self.ledger.slots)

    def _after_fork(self) -> None:
        """In the child of a fork: no other thread exists here, so its lock is open and what it did never ends."""
        self._process, self.changes = os.getpid(), Changes()
        self.ledger.asks = []
        for slot in self.ledger.slots:
            held = slot.leases.items()
            slot.leases = {number: owner for number, owner in held if owner.thread == threading.get_ident()}
            if slot.attempt is not None:
                slot.attempt = slot.pipe = None
                slot.nbytes, slot.resident = 0, False
