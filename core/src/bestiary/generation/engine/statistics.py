"""What an engine is doing, and has done since it began."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bestiary.generation.engine.events import Ended

_RECENT = 1024


@dataclass(frozen=True)
class Totals:
    """Counts since the engine began."""

    requests: int = 0
    """Answers that ended: complete, cancelled or failed."""
    steps: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    """Prompt tokens that were found in the cache instead of computed."""
    generated_tokens: int = 0
    preemptions: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    def plus(self, **counts: int) -> Totals:
        return replace(self, **{name: getattr(self, name) + count for name, count in counts.items()})

    @property
    def acceptance(self) -> float | None:
        """The share of drafted tokens that the model confirmed; None where nothing was drafted."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else None


@dataclass(frozen=True)
class Seconds:
    """Times of the last thousand answers or so; None where there were none."""

    mean: float | None = None
    median: float | None = None
    p95: float | None = None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Seconds:
        known = sorted(value for value in values if value is not None)
        if not known:
            return cls()
        return cls(sum(known) / len(known), known[len(known) // 2], known[min(len(known) - 1, len(known) * 95 // 100)])


@dataclass(frozen=True)
class Statistics:
    """A moment of an engine: requests that wait and run, blocks of its cache, the totals and recent times."""

    waiting: int
    running: int
    blocks: int
    blocks_used: int
    totals: Totals
    queue: Seconds = Seconds()
    """From arrival to the first step."""
    first_token: Seconds = Seconds()
    """From arrival to the first token."""
    inter_token: Seconds = Seconds()
    """Between two tokens of an answer, its mean."""


class Record:
    """The totals and the recent answers; owned by the engine's loop."""

    def __init__(self) -> None:
        self.totals = Totals()
        self.recent: deque[Ended] = deque(maxlen=_RECENT)

    def step(self) -> None:
        self.totals = self.totals.plus(steps=1)

    def end(self, ended: Ended) -> None:
        self.recent.append(ended)
        self.totals = self.totals.plus(
            requests=1,
            prompt_tokens=ended.prompt_tokens,
            reused_tokens=ended.reused_tokens,
            generated_tokens=ended.completion_tokens,
            preemptions=ended.preemptions,
            drafted_tokens=ended.drafted,
            accepted_tokens=ended.accepted,
        )

    def at(self, *, waiting: int, running: int, blocks: int, blocks_used: int) -> Statistics:
        recent = tuple(self.recent)
        return Statistics(
            waiting,
            running,
            blocks,
            blocks_used,
            self.totals,
            queue=Seconds.of(ended.queue_seconds for ended in recent),
            first_token=Seconds.of(ended.first_token_seconds for ended in recent),
            inter_token=Seconds.of(ended.inter_token_seconds for ended in recent),
        )
