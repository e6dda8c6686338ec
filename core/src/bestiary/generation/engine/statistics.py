"""What an engine is doing, and has done since it began."""

from dataclasses import dataclass, replace


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

    def plus(self, **counts: int) -> "Totals":
        return replace(self, **{name: getattr(self, name) + count for name, count in counts.items()})


@dataclass(frozen=True)
class Statistics:
    """A moment of an engine: requests that wait and run, blocks of its cache, and the totals."""

    waiting: int
    running: int
    blocks: int
    blocks_used: int
    totals: Totals
