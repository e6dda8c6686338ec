"""Where the tokens of a prompt stand: by time, row and column (M-RoPE, Qwen2-VL, arXiv 2409.12191)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bestiary.errors import MediaError
from bestiary.media.processor import Positions
from bestiary_qwen_vl.grid import Grid

Stretch = tuple[np.ndarray, Grid, float]
"""The places of a medium's rows among the tokens, its merged grid, and the positions between two of its moments."""


def place(length: int, stretches: Iterable[Stretch]) -> Positions:
    """Of the tokens of a prompt, as transformers 5.23 has them; an answer counts on from the last.

    Texts count on in all three; a medium begins where the text before it ends, and the text after it begins as far on
    as the longer side of the medium's grid, however long a video lasts.  (Before version 5 it began after the last
    moment; of pictures that is the same.)
    """
    made = np.empty((3, length), np.int64)
    token = position = 0
    for places, grid, interval in sorted(stretches, key=lambda stretch: int(stretch[0][0])):
        first, end = int(places[0]), int(places[-1]) + 1
        if end - first != len(places):
            raise MediaError("The tokens that stand for one picture or video are not beside each other.")
        made[:, token:first] = np.arange(position, position + first - token)
        position += first - token
        made[:, first:end] = _within(grid, interval) + position
        token, position = end, position + max(grid.height, grid.width)
    made[:, token:] = np.arange(position, position + length - token)
    return Positions(made, position - token)


def _within(grid: Grid, interval: float) -> np.ndarray:
    """[3, rows], from zero."""
    time, row, column = np.indices((grid.time, grid.height, grid.width)).reshape(3, -1)
    # In float32, as transformers has it: which of two positions a moment gets may depend on it.
    return np.stack([(time.astype(np.float32) * np.float32(interval)).astype(np.int64), row, column])
