"""One sequence of tokens on its way through the engine."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from itertools import count

from bestiary.generation.engine.prefixes import Prefix

_arrivals = count()


@dataclass(eq=False)
class Sequence:
    """Tokens, how many of them the cache holds, and in which blocks.

    `tables` has a list of block numbers for each cache group; None stands for blocks that a sliding window has left
    behind.  Lower `priority` runs first; of equal ones the earlier arrival.
    """

    tokens: list[int]
    prompt_length: int
    priority: int = 0
    salt: bytes = b""
    arrival: int = field(default_factory=lambda: next(_arrivals))
    computed: int = 0
    """Tokens whose keys and values lie in the blocks."""
    reused: int = 0
    """Prompt tokens that were found in the cache when the sequence was first admitted."""
    preemptions: int = 0
    tables: list[list[int | None]] = field(default_factory=list)
    prefix: Prefix | None = None
    """The node of the last full block that was noted in the tree."""
    noted: int = 0
    """Full blocks that were noted."""

    @property
    def order(self) -> tuple[int, int]:
        return (self.priority, self.arrival)

    @property
    def pending(self) -> int:
        """Tokens that the next steps must compute; 1 while decoding."""
        return len(self.tokens) - self.computed


@dataclass(frozen=True)
class Work:
    """What one sequence does in a step: `count` tokens from `start`; the last one's logits are wanted if it is the
    sequence's last."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        return self.start + self.count == len(self.sequence.tokens)


@dataclass(frozen=True)
class Plan:
    """One step: the work of each sequence, and blocks to copy before it (group, from, to)."""

    work: Many[Work]
    copies: Many[tuple[int, int, int]] = ()
