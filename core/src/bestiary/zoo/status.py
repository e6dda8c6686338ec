"""What a zoo tells of one model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelStatus:
    """A moment of one model of a zoo."""

    name: str
    id: str
    aliases: tuple[str, ...]
    state: str
    """"unloaded", "loading", "ready", "closing", or "failed": the last load failed, and the next caller tries again."""
    nbytes: int
    """What it takes of the budget now: weights, and what its cache can come to hold."""
    needed: int | None
    """What it takes when it is loaded; None: nobody has asked for it yet."""
    pinned: bool
    leases: int
    running: int
    """Requests in the pipeline's engine; 0 for a pipeline without one."""
    waiting: int
    loads: int
    """How often it was loaded."""
    last_used: float | None
    """When its last lease began or ended, in seconds since the epoch."""
    load_seconds: float | None
    """How long the last load took."""
    error: str | None
    """Why the last load failed."""
