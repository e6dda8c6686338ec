"""What a zoo asks of a pipeline of any task: whether it runs something, and to close."""

from __future__ import annotations

import gc
import logging
import sys
import traceback
from typing import Any

log = logging.getLogger("bestiary.zoo")


def requests(pipeline: Any) -> tuple[int, int]:
    """Requests that run and wait in its engine; none where it has no `statistics`, or is closed."""
    try:
        found = pipeline.statistics()
        return int(found.running), int(found.waiting)
    except Exception:
        return 0, 0


def shut(pipeline: Any) -> None:
    """Close it; a failure is logged, for the caller can do nothing about it."""
    try:
        close = getattr(pipeline, "close", None)
        if close is not None:
            close()
    except Exception:
        log.exception("a pipeline failed to close")


def give_memory_back() -> None:
    """Of pipelines that nobody holds any more: what lies in cycles, and what torch keeps of a GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def forget_frames(error: BaseException) -> None:
    """Let go of what the frames of an error hold: a load that failed halfway would keep its half of the model."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            traceback.clear_frames(current.__traceback__)
            pending += [current.__cause__, current.__context__]
