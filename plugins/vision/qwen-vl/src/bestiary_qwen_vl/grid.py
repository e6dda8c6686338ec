"""The patches of a picture or video, and which of them see each other.

Patches come in the order of the processor: moment by moment, and within one block by block, so that those which become
one row are neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

Sets = Mapping[int, np.ndarray]
"""By their size L, sets of patches that see each other: numbers of patches [N, L]."""


@dataclass(frozen=True)
class Grid:
    """How many patches there are: moments, rows and columns."""

    time: int
    height: int
    width: int

    @property
    def patches(self) -> int:
        return self.time * self.height * self.width

    def rows(self, merge: int) -> int:
        """Rows for the language model, where merge x merge patches become one."""
        return self.patches // merge**2


def coordinates(grid: Grid, merge: int) -> np.ndarray:
    """[2, patches] int64: the row and the column of each patch."""
    made = np.indices((grid.height, grid.width)).reshape(2, grid.height // merge, merge, grid.width // merge, merge)
    return np.tile(made.transpose(0, 1, 3, 2, 4).reshape(2, -1), grid.time)


def by_frame(grid: Grid) -> Sets:
    """Patches that see the whole of their moment."""
    return {grid.height * grid.width: np.arange(grid.patches).reshape(grid.time, -1)}


def by_window(grid: Grid, merge: int, window: int) -> Sets:
    """Patches that see their window, of window x window merged ones; those at the right and below may be smaller."""
    blocks = np.arange(grid.height * grid.width // merge**2).reshape(grid.height // merge, grid.width // merge)
    found: dict[int, list[np.ndarray]] = {}
    for top in range(0, blocks.shape[0], window):
        for left in range(0, blocks.shape[1], window):
            inside = blocks[top : top + window, left : left + window].reshape(-1, 1)
            patches = (inside * merge**2 + np.arange(merge**2)).reshape(-1)
            found.setdefault(len(patches), []).append(patches)
    moments = np.arange(grid.time).reshape(-1, 1, 1) * (grid.height * grid.width)
    return {size: (np.stack(sets) + moments).reshape(-1, size) for size, sets in found.items()}


def together(each: Iterable[tuple[Grid, Sets]]) -> Sets:
    """The sets of several pictures whose patches follow each other."""
    made: dict[int, list[np.ndarray]] = {}
    first = 0
    for grid, sets in each:
        for size, patches in sets.items():
            made.setdefault(size, []).append(patches + first)
        first += grid.patches
    return {size: np.concatenate(patches) for size, patches in made.items()}
