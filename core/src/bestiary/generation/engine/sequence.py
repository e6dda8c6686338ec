"""One sequence of tokens on its way through the engine."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from bestiary.generation.engine.prefixes import Prefix

if TYPE_CHECKING:
    from bestiary.adapters.residency import Generation
    from bestiary.media.prompt import MediaPrompt

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
    adapter: Generation | None = None
    """The adapter generation whose rows these are; None: the base model."""
    media: MediaPrompt | None = None
    """The pictures and sounds of the prompt."""
    arrival: int = field(default_factory=lambda: next(_arrivals))
    wanted: int = -1
    """The first position whose logits are wanted; set by whoever adds tokens, and at first the prompt's last."""
    drafts: int = 0
    """How many of the last tokens are guesses that the next step verifies."""
    computed: int = 0
    """Tokens whose keys and values lie in the blocks."""
    reused: int = 0
    """Prompt tokens that were found in the cache when the sequence was first admitted."""
    sound: int = 0
    """Tokens, from the first, that are those which the last step computed: a refused draft ends them."""
    shadow: int = 0
    """Tokens that lie in the cache of the drafting model too."""
    preemptions: int = 0
    tables: list[list[int | None]] = field(default_factory=list)
    prefix: Prefix | None = None
    """The node of the last full block that was noted in the tree."""
    noted: int = 0
    """Full blocks that were noted."""

    def __post_init__(self) -> None:
        if self.wanted < 0:
            self.wanted = self.prompt_length - 1
        self.sound = len(self.tokens)

    @property
    def order(self) -> tuple[int, int]:
        return (self.priority, self.arrival)

    @property
    def pending(self) -> int:
        """Tokens that the next steps must compute; 1, and the drafts, while decoding."""
        return len(self.tokens) - self.computed

    @property
    def shift(self) -> int:
        """The position of a token after the prompt, less its index."""
        return 0 if self.media is None or self.media.positions is None else self.media.positions.shift

    def positions(self, start: int, end: int) -> np.ndarray:
        """Of the tokens [start, end): [T], or [3, T] where the media of the prompt say so."""
        stated = self.media.positions if self.media is not None else None
        if stated is None:
            return np.arange(start, end)
        after = np.arange(max(start, self.prompt_length), max(end, self.prompt_length)) + stated.shift
        if start >= self.prompt_length:
            return after
        return np.concatenate((stated.prompt[:, start:end], np.broadcast_to(after, (3, len(after)))), 1)

    def identities(self, start: int, end: int) -> list[int]:
        """What the tokens [start, end) are to whoever compares prefixes: of media, tokens alone say nothing."""
        found = self.tokens[start:end]
        if self.media is not None and start < self.prompt_length:
            named = self.media.identities
            return [named.get(place, token) for place, token in enumerate(found, start)]
        return found

    def guess(self, tokens: Many[int]) -> None:
        """Add drafts."""
        self.tokens += tokens
        self.drafts += len(tokens)

    def keep_drafts(self, count: int) -> None:
        """Drop all drafts but the first `count`."""
        dropped = self.drafts - count
        if dropped > 0:
            del self.tokens[len(self.tokens) - dropped :]
            self.drafts = count


@dataclass(frozen=True)
class Work:
    """What one sequence does in a step: `count` tokens from `start`."""

    sequence: Sequence
    start: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.count

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """The runs of tokens that see each other both ways, of those that are computed."""
        media = self.sequence.media
        return () if media is None or not media.runs else media.runs_before(self.start, self.end)

    @property
    def outputs(self) -> range:
        """The positions whose logits are wanted."""
        return range(min(max(self.start, self.sequence.wanted), self.end), self.end)


@dataclass(frozen=True)
class Plan:
    """One step: the work of each sequence, and blocks to copy before it (group, from, to)."""

    work: Many[Work]
    copies: Many[tuple[int, int, int]] = ()

    def trimmed(self) -> Plan:
        """The same where sequences have lost drafts since."""
        lengths = [min(work.end, len(work.sequence.tokens)) - work.start for work in self.work]
        pairs = zip(self.work, lengths, strict=True)
        return Plan(tuple(Work(work.sequence, work.start, count) for work, count in pairs), self.copies)
