"""Pictures kept within bounds between two steps: for models of pixels, whose values have bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestiary.schedulers.scheduler import Array


@dataclass(frozen=True, kw_only=True)
class Clipping:
    """The keys that say how the predicted picture is kept within bounds."""

    clip_sample: bool = True
    clip_sample_range: float = 1.0
    thresholding: bool = False
    """By the quantile of each picture in place of fixed bounds (Saharia et al. 2022, dynamic thresholding)."""
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0

    def clipped(self, sample: Array) -> Array:
        """The picture [B, ...] within bounds; of the same type."""
        if self.thresholding:
            return thresholded(sample, self.dynamic_thresholding_ratio, self.sample_max_value)
        return sample.clip(-self.clip_sample_range, self.clip_sample_range) if self.clip_sample else sample


def thresholded(sample: Array, ratio: float, most: float) -> Array:
    """Each picture of [B, ...] cut at the quantile `ratio` of its absolute values, and divided by it.

    The cut is from 1 to `most`.
    """
    rows = abs(sample).reshape(sample.shape[0], -1)
    host = rows if isinstance(rows, np.ndarray) else rows.detach().float().cpu().numpy()
    cuts = np.quantile(host.astype(np.float64), ratio, axis=1).clip(1, most)
    made = sample * 1  # a copy, whatever library it is of
    for row, cut in enumerate(cuts.tolist()):
        made[row] = made[row].clip(-cut, cut) / cut
    return made
