"""Torch's threads and ours on the same cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def quiet() -> Iterator[None]:
    """Let this thread's torch compute alone meanwhile.

    After an operation on several threads torch's others look for more work for milliseconds, on the cores that ours
    need for the next step.  What torch does between two steps, choosing a token, is too small to gain from them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
