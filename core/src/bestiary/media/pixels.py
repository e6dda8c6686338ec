"""Pictures as tensors and back, with the numbers of diffusers' VaeImageProcessor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from bestiary.media.images import resize
from bestiary.media.limits import MediaLimits
from bestiary.media.opening import open_media

Picture = Image.Image
"""For those who have no other use for Pillow."""


def picture(source: Any, limits: MediaLimits) -> Picture:
    """A picture in RGB, upright, of whatever `bestiary.media.opening` takes.  Raises MediaError."""
    return open_media(source, "image", limits).frames[0]


def pixels_of(image: Picture, height: int, width: int) -> torch.Tensor:
    """[1, 3, H, W] in -1..1 of a picture, resized."""
    values = np.asarray(resize(image, height, width, Image.Resampling.LANCZOS), dtype=np.float32) / 255
    return torch.from_numpy(values).permute(2, 0, 1)[None] * 2 - 1


def like_area(image: Picture, area: int, multiple: int) -> tuple[int, int]:
    """Height and width of nearly an area and of the shape of a picture, in multiples."""
    scale = (area / (image.height * image.width)) ** 0.5
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in (image.height, image.width))
    return height, width


def mask_of(image: Picture, height: int, width: int) -> torch.Tensor:
    """[1, 1, H, W] of 0 and 1: 1 where the picture, resized, is lighter than the middle of grey."""
    grey = resize(image, height, width, Image.Resampling.LANCZOS).convert("L")
    return (torch.from_numpy(np.asarray(grey, dtype=np.float32) / 255)[None, None] >= 0.5).float()


def image_of(pixels: torch.Tensor) -> Picture:
    """The picture of pixels [1, 3, H, W] in -1..1; what is beyond is cut off."""
    values = (pixels[0].float().cpu() / 2 + 0.5).clamp_(0, 1)
    return Image.fromarray((values.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
