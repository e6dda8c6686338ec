"""The state of one model in a zoo, and of those who want it.  Whoever reads or changes it holds the keeper's lock."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from bestiary.zoo.entry import Entry
from bestiary.zoo.estimate import Estimate
from bestiary.zoo.status import ModelStatus

_tickets = count()


@dataclass(frozen=True)
class Owner:
    """Who asks: a thread, or a task in it."""

    thread: int
    task: int | None


def this_owner() -> Owner:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        task = None
    return Owner(threading.get_ident(), None if task is None else id(task))


@dataclass(eq=False)
class Attempt:
    """Estimating, loading or closing: one thread does it, the others wait for it and share its error."""

    state: str
    owner: Owner = field(default_factory=this_owner)
    error: Exception | None = None


@dataclass(eq=False)
class Slot:
    """One model: its entry, what it takes, its pipeline and who uses it."""

    name: str
    entry: Entry
    estimate: Estimate | None = None
    needed: int = 0
    """What it takes when it is loaded: estimated at first, then measured."""
    nbytes: int = 0
    """What it takes of the budget now: from before its load until after it is closed."""
    resident: bool = False
    """Whether it may hold memory: not yet while others are closed to make room for it."""
    pipe: Any = None
    attempt: Attempt | None = None
    leases: dict[int, Owner] = field(default_factory=dict)
    removed: bool = False
    used: float = 0.0
    """On the monotonic clock."""
    last_used: float | None = None
    loads: int = 0
    seconds: float | None = None
    error: str | None = None

    @property
    def state(self) -> str:
        if self.attempt is not None:
            return self.attempt.state
        return "ready" if self.pipe is not None else "failed" if self.error else "unloaded"

    def touch(self) -> None:
        """It is used now."""
        self.used, self.last_used = time.monotonic(), time.time()

    def status(self, running: int, waiting: int) -> ModelStatus:
        """What others may see of it, with the requests in its pipeline."""
        return ModelStatus(
            name=self.name,
            id=self.entry.id,
            aliases=self.entry.aliases,
            state=self.state,
            nbytes=self.nbytes,
            needed=None if self.estimate is None else self.needed,
            pinned=self.entry.pinned,
            leases=len(self.leases),
            running=running,
            waiting=waiting,
            loads=self.loads,
            last_used=self.last_used,
            load_seconds=self.seconds,
            error=self.error,
        )


@dataclass(eq=False)
class Ask:
    """One caller on the way to a lease."""

    slot: Slot
    patience: float
    """Seconds that it waits for others to finish."""
    owner: Owner = field(default_factory=this_owner)
    number: int = field(default_factory=lambda: next(_tickets))
    deadline: float | None = None
    """On the monotonic clock; set when it first waits so, for loads are not counted."""
    attempt: Attempt | None = None
    """The one that it waits for."""
    wanted: frozenset[Slot] = frozenset()
    """The models that must go for it: who comes later for one of these waits."""
    running: frozenset[Slot] = frozenset()
    """Models without a lease that were found to run a request all the same."""
