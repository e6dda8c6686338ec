"""What is left of requests, once an engine has put everything away."""

from __future__ import annotations

import time
from typing import Protocol

from bestiary.generation.engine.statistics import Statistics


class Told(Protocol):
    """An engine, or a pipeline over one."""

    def statistics(self) -> Statistics:
        """As it is now."""


def settled(served: Told) -> Statistics:
    """The statistics when nothing waits, runs or holds blocks any more.

    An engine puts away what a request held after it gave the last token out, so whoever has that must wait.  Raises
    AssertionError where something is left after ten seconds.
    """
    end = time.monotonic() + 10
    while (found := served.statistics()).waiting or found.running or found.blocks_used:
        assert time.monotonic() < end, f"something is left: {found}"
        time.sleep(0.005)
    return found
