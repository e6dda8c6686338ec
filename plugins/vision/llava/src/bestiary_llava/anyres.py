"""Pictures of any resolution (LLaVA-NeXT, Liu et al. 2024): which tiles a picture is cut into, and which rows stay.

A picture is scaled into the best of a few resolutions, its rest padded, and cut into tiles.  The tower sees the whole
picture, scaled to one tile, and each tile; of the tiles' patches those of the padding are left out, and each line of
patches ends in a learned row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Anyres:
    """Sizes are heights and widths, in that order."""

    tile: int
    """Pixels of a tile's side."""
    side: int
    """Patches of a tile's side."""
    resolutions: tuple[tuple[int, int], ...]
    """In pixels, all whole tiles."""

    def best(self, height: int, width: int) -> tuple[int, int]:
        """The resolution that keeps most of a picture of this size; of equals the one that wastes least."""

        def merit(resolution: tuple[int, int]) -> tuple[int, int]:
            high, wide = resolution
            scale = min(wide / width, high / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - wide * high

        return max(self.resolutions, key=merit)

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """The size of a picture that is scaled into its best resolution."""
        high, wide = self.best(height, width)
        if wide / width < high / height:
            return min(math.ceil(height * (wide / width)), high), wide
        return high, min(math.ceil(width * (high / height)), wide)

    def tiles(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles of a picture of this size."""
        high, wide = self.best(height, width)
        return high // self.tile, wide // self.tile

    def kept(self, height: int, width: int) -> tuple[slice, slice]:
        """Which lines and columns of patches, of all the tiles together, show the picture and not the padding."""
        lines, columns = (count * self.side for count in self.tiles(height, width))
        # Rounded before it is cut to a whole number, so that an exact fit is not missed by one part in 10^16.
        if width / height > columns / lines:
            padding = (lines - int(round(height * (columns / width), 7))) // 2
            return slice(padding, lines - padding), slice(0, columns)
        padding = (columns - int(round(width * (lines / height), 7))) // 2
        return slice(0, lines), slice(padding, columns - padding)

    def rows(self, height: int, width: int) -> int:
        """All of a picture: its patches as one tile, and the lines that are kept, each with the row at its end."""
        lines, columns = self.kept(height, width)
        count: int = (lines.stop - lines.start) * (columns.stop - columns.start + 1)
        return self.side**2 + count
