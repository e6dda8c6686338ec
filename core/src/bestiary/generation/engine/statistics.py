"""What an engine is doing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Statistics:
    """A moment of an engine: requests that wait, run and are done, and blocks of its cache."""

    waiting: int
    running: int
    finished: int
    blocks: int
    blocks_used: int
