"""Bars on stderr for long work, one for each stage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bestiary.records import Progress

IN_BYTES = ("fetch", "download", "load", "write", "check")
"""Stages whose units are bytes."""


@contextmanager
def bar(wanted: bool | None = None) -> Iterator[Callable[[Progress], None] | None]:
    """A function that draws Progress events as bars, or None where they are not wanted.

    `wanted` None means: on a terminal only.
    """
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def draw(event: Progress) -> None:
        if event.stage not in bars:
            unit = "B" if event.stage in IN_BYTES else ""
            bars[event.stage] = tqdm(
                total=event.total, desc=event.stage, unit=unit, unit_scale=True, leave=False, file=sys.stderr
            )
        shown = bars[event.stage]
        shown.total = event.total
        shown.update(event.done - shown.n)

    try:
        yield draw
    finally:
        for shown in bars.values():
            shown.close()
