"""Long pictures in parts, as Gemma 3 looks at them a second time (Gemma 3 report 2025, section 2.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""


@dataclass(frozen=True)
class PanAndScan:
    """When a picture is cut, and into how many parts; the names are those of preprocessor_config.json."""

    min_crop_size: int = 256
    max_num_crops: int = 4
    min_ratio_to_activate: float = 1.2

    def crops(self, width: int, height: int) -> list[Box]:
        """The parts of a picture of this size, along its longer side; none where it is not cut.

        The arithmetic is that of transformers' Gemma3ImageProcessor: the last part may be shorter than the others, and
        where `min_crop_size` is a few pixels, some may be empty.
        """
        longer, shorter = max(width, height), min(width, height)
        if longer / shorter < self.min_ratio_to_activate:
            return []
        # As many as squares fit, halves rounded up, of at least min_crop_size pixels; but two, and never too many.
        wanted = min(longer // self.min_crop_size, math.floor(longer / shorter + 0.5))
        count = min(self.max_num_crops, max(2, wanted))
        length = math.ceil(longer / count)
        if min(length, shorter) < self.min_crop_size:
            return []
        edges = [min(length * place, longer) for place in range(count + 1)]
        spans = list(pairwise(edges))
        if width >= height:
            return [(start, 0, end, height) for start, end in spans]
        return [(0, start, width, end) for start, end in spans]
