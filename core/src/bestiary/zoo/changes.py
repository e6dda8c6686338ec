"""A lock whose changes can be waited for in threads and in event loops."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Changes:
    """A context manager that holds the lock, which one thread may take again while it has it."""

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.RLock())
        self._wakers: set[Callable[[], object]] = set()
        self.count = 0
        """Changes so far; whoever compares it misses none."""

    def __enter__(self) -> Self:
        self._condition.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._condition.release()

    def tell(self) -> None:
        """Wake all who wait."""
        with self._condition:
            self.count += 1
            self._condition.notify_all()
            wakers, self._wakers = self._wakers, set()
            for wake in wakers:
                wake()

    def wait(self, seconds: float | None) -> None:
        """Give the lock up until the next change, at most so long; the caller holds it, and looks again.

        Never longer than a second: a stream that is collected in this very thread, just before it waits, wakes nobody.
        """
        self._condition.wait(1.0 if seconds is None else min(seconds, 1.0))

    async def after(self, count: int, seconds: float | None) -> None:
        """Wait until there were more than `count` changes, at most so long; the caller does not hold the lock."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(changed.set)

        with self._condition:
            if self.count != count:
                return
            self._wakers.add(wake)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), seconds)
        finally:
            with self._condition:
                self._wakers.discard(wake)
