"""Group norm, and the step of which these networks are made: a norm, SiLU and a convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bestiary_autoencoder.convolution import Convolution
from bestiary_autoencoder.precision import computing_type

_EPS = 1e-6
_STRIP = 1 << 19
"""Numbers in a strip of a picture, some rows of it: those between its norm and its convolution stay in the caches."""


class GroupNorm(nn.Module):
    """Group norm (Wu and He 2018) of x [B, C, H, W]."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, self.groups, self.weight.to(x.dtype), self.bias.to(x.dtype), _EPS)

    def line(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The norm of one picture [1, C, H, W] as a factor and an addend for each channel, [1, C, 1, 1] in float32."""
        mean, var = (part.view(self.groups, -1) for part in _moments(x))
        # The channels of a group have equally many pixels: the variance within them, and that between their means.
        group_mean = mean.mean(1, keepdim=True)
        group_var = var.mean(1, keepdim=True) + (mean - group_mean).square().mean(1, keepdim=True)
        factor = (group_var + _EPS).rsqrt() * self.weight.float().view(self.groups, -1)
        addend = self.bias.float().view(self.groups, -1) - group_mean * factor
        return factor.view(1, -1, 1, 1), addend.view(1, -1, 1, 1)


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance [C] of each channel of one picture [1, C, H, W], in float32."""
    # This reads a picture with channels last once, in order; torch.var_mean takes ten times as long.
    if x.dtype == torch.float32:
        return torch.batch_norm_update_stats(x, None, None, 0.0)
    strips = torch.split(x, max(1, _STRIP // (x.shape[1] * x.shape[3])), 2)
    parts = [torch.batch_norm_update_stats(strip.float(), None, None, 0.0) for strip in strips]
    shares = [strip.shape[2] / x.shape[2] for strip in strips]
    mean = sum((share * each for share, (each, _) in zip(shares, parts, strict=True)), torch.zeros(x.shape[1]))
    within = sum(
        (share * (var + (each - mean).square()) for share, (each, var) in zip(shares, parts, strict=True)),
        torch.zeros(x.shape[1]),
    )
    return mean, within


def activated(x: torch.Tensor, norm: GroupNorm, conv: Convolution, onto: torch.Tensor | None = None) -> torch.Tensor:
    """conv(silu(norm(x))) of x [B, I, H, W], the kernels 3 x 3: [B, O, H, W], added to `onto` in place if given."""
    if x.device.type != "cpu":
        y = conv(F.silu(norm(x), inplace=True))
        return y if onto is None else onto.add_(y)
    made = _empty(x, (len(x), len(conv.bias), *x.shape[2:])) if onto is None else onto
    for picture, target in zip(torch.split(x, 1), torch.split(made, 1), strict=True):
        _strips(picture, target, norm, conv, added=onto is not None)
    return made


def _strips(x: torch.Tensor, target: torch.Tensor, norm: GroupNorm, conv: Convolution, added: bool) -> None:
    """`activated` of one picture, strip by strip: a whole picture between the steps would go to memory and back."""
    factor, addend = norm.line(x)
    weight, bias = conv.cast(kind := computing_type(x))
    height, width = x.shape[2:]
    rows = min(height, max(1, _STRIP // (width * max(weight.shape[:2]))))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        above, below = max(start - 1, 0), min(stop + 1, height)
        # A row more on both sides, of zeros beyond the edge of the picture.
        strip = _empty(x, (1, x.shape[1], stop - start + 2, width), kind)
        strip[:, :, 0], strip[:, :, -1] = 0, 0
        inner = strip[:, :, above - start + 1 : below - start + 1]
        inner.copy_(F.silu(torch.addcmul(addend, x[:, :, above:below].float(), factor), inplace=True))
        y = F.conv2d(strip, weight, bias, padding=(0, 1))
        if added:
            target[:, :, start:stop].add_(y)
        else:
            target[:, :, start:stop] = y


def _empty(like: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)
