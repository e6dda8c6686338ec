"""The activation of these networks."""

from __future__ import annotations

import torch
from torch import nn

from bestiary_dac.flow import Flow, Prepared

_STRIP = 1 << 18
"""Numbers that the four steps take at once on a CPU, so that they stay in a cache between them."""


class Snake(nn.Module):
    """x + sin^2(a x) / a with a learned `a` for each channel (Ziyin, Hartwig and Ueda 2020, arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1, channels, 1))

    def forward(self, x: torch.Tensor, flow: Flow, inplace: bool = False) -> torch.Tensor:
        """x [B, T, C] -> [B, T, C]."""
        alpha, inverse = flow.prepared(self, lambda: self._prepare(x.dtype))
        made = x if inplace else torch.empty_like(x)
        rows = max(1, _STRIP // (len(x) * x.shape[2]) if x.device.type == "cpu" else x.shape[1])
        for part, target in zip(torch.split(x, rows, 1), torch.split(made, rows, 1), strict=True):
            wave = (part * alpha).sin_()
            torch.addcmul(part, wave.mul_(wave), inverse, out=target)
        return made

    def _prepare(self, dtype: torch.dtype) -> Prepared:
        alpha = self.alpha.flatten().to(dtype)
        return alpha, (alpha + 1e-9).reciprocal()
