"""Convolutions over pictures, in the type of the picture whatever that of the weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bestiary_autoencoder.precision import computing_type

_ROWS = 32
"""Of a picture, that are turned into another type at once."""


class Convolution(nn.Module):
    """A convolution of x [B, I, H, W] with square kernels [O, I, K, K], and its bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.empty(outputs, inputs, kernel, kernel)),
            nn.Parameter(torch.empty(outputs)),
        )
        self.stride = stride

    def forward(self, x: torch.Tensor, padding: tuple[int, int] | None = None) -> torch.Tensor:
        """`padding` is the rows of zeros above and below, and the columns at the sides; None: what keeps the size."""
        weight, bias = self.cast(kind := computing_type(x))
        around = (weight.shape[-1] // 2,) * 2 if padding is None else padding
        if kind == x.dtype or weight.shape[-1] > 1:
            return F.conv2d(x.to(kind), weight, bias, self.stride, around).to(x.dtype)
        # Pixel by pixel: some rows at a time, so that no whole picture stands in the larger type.
        shape = (len(x), len(bias), *x.shape[2:])
        made = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for rows, target in zip(torch.split(x, _ROWS, 2), torch.split(made, _ROWS, 2), strict=True):
            target.copy_(F.conv2d(rows.to(kind), weight, bias))
        return made

    def cast(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Kernels and bias in the type that is computed with, made at each call: copies that stay double a model."""
        # With channels last, as the pictures of a CPU lie, the library need not rearrange them.
        return self.weight.to(dtype, memory_format=torch.channels_last), self.bias.to(dtype)


class Downsample(nn.Module):
    """Half the resolution: every other pixel of a convolution that looks to the right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, C, H, W] -> [B, C, H // 2, W // 2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1)), (0, 0))  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Twice the resolution: a convolution of the picture in which each pixel stands four times."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, C, H, W] -> [B, C, 2 H, 2 W]."""
        if x.device.type != "cpu":
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]
        return doubled(x, *self.conv.cast(torch.float32), computing_type(x))


def doubled(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, kind: torch.dtype | None = None) -> torch.Tensor:
    """The convolution [O, I, 3, 3], in float32, of x [B, I, H, W] doubled, without doubling it: [B, O, 2 H, 2 W].

    Three taps in a row of the doubled picture see two different pixels.  So each of the four pixels that come from one
    is a convolution of x with 2 x 2 taps, some of which are sums: less than half of the products.  It computes in the
    type `kind`, or in that of x.
    """
    kind = kind or x.dtype
    batch, _, height, width = x.shape
    shape = (batch, len(weight), 2 * height, 2 * width)
    made = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for down in (0, 1):
        for right in (0, 1):
            taps = _paired(_paired(weight, 2, down), 3, right).to(kind, memory_format=torch.channels_last)
            whole = F.conv2d(x.to(kind), taps, bias.to(kind), padding=1)
            made[:, :, down::2, right::2] = whole[:, :, down : down + height, right : right + width]
    return made


def _paired(weight: torch.Tensor, dim: int, later: int) -> torch.Tensor:
    """Three taps along a dimension as two, for the first or the later of two equal pixels."""
    first, middle, last = torch.split(weight, 1, dim)
    return torch.cat((first + middle, last) if later else (first, middle + last), dim)
