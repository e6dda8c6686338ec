"""What is done to a picture before the tower sees it, as the image processors of CLIP, SigLIP and LLaVA do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bestiary.errors import MediaError
from bestiary.media import images
from bestiary_llava.anyres import Anyres
from bestiary_llava.resampling import resized_centre, resized_square
from bestiary_llava.settings import Settings

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_MOST = 1 << 26
"""Pixels of a resized or padded picture that is made as a whole."""
_PASSED = 1 << 28
"""Pixels of a padded picture that is made in strips."""


@dataclass(frozen=True)
class Pictures:
    """The values of preprocessor_config.json.  Sizes are heights and widths."""

    resizes: bool
    size: Mapping[str, int]
    """{"height", "width"} or {"shortest_edge"}."""
    resample: int
    crops: bool
    crop: tuple[int, int]
    """In LLaVA-NeXT the size of tiles, too."""
    pad: tuple[int, int, int] | None
    """The colour in which a picture is first padded to a square."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float

    @classmethod
    def read(cls, settings: Settings, kind: str) -> Pictures:
        """`kind` is the class of the image processor: it says what stands for what is not stated.

        Raises ConfigError.
        """
        siglip = kind == "SiglipImageProcessor"
        mean = settings.colour("image_mean", _HALF if siglip else _CLIP_MEAN)
        std = settings.colour("image_std", _HALF if siglip else _CLIP_STD)
        if 0.0 in std:
            raise settings.wrong("image_std", "a list of three numbers that are not 0")
        if settings.get("pad_size") is not None:
            raise settings.wrong("pad_size", "null")
        square = {"height": 224, "width": 224}
        crop = settings.size("crop_size", square)
        edges = crop.get("shortest_edge", 0)  # a number: of both
        # Only LLaVA's own class pads pictures; what the others pad is batches.
        pads = settings.flag("do_pad", False) and kind == "LlavaImageProcessor"
        if pads and not all(0 <= value < 256 / 255 for value in mean):
            raise settings.wrong("image_mean", "a list of three numbers from 0 to 1")
        normalises = settings.flag("do_normalize", True)
        return cls(
            resizes=settings.flag("do_resize", True),
            size=settings.size("size", square if siglip else {"shortest_edge": 224}),
            resample=settings.whole("resample", int(Image.Resampling.BICUBIC), 0, 5),
            crops=settings.flag("do_center_crop", not siglip),
            crop=(crop.get("height", edges), crop.get("width", edges)),
            pad=(int(mean[0] * 255), int(mean[1] * 255), int(mean[2] * 255)) if pads else None,
            mean=mean if normalises else (0.0, 0.0, 0.0),
            std=std if normalises else (1.0, 1.0, 1.0),
            scale=settings.number("rescale_factor", 1 / 255) if settings.flag("do_rescale", True) else 1.0,
        )

    def after(self, height: int, width: int) -> tuple[int, int]:
        """The size that a picture of this size comes to have."""
        return self.crop if self.crops else self._resized(height, width)

    def whole(self, image: Image.Image) -> np.ndarray:
        """A picture seen in one piece: [1, 3, H, W] float32.  Raises MediaError for one that would be too large."""
        return self._numbers(self._fitted(image))[None]

    def tiled(self, image: Image.Image, anyres: Anyres) -> np.ndarray:
        """A picture as LLaVA-NeXT sees it, first the whole and then its tiles: [1 + tiles, 3, H, W] float32."""
        size = image.height, image.width
        scaled = images.resize(image, *anyres.scaled(*size), self.resample)
        tiles = images.tiles(images.padded(scaled, *anyres.best(*size)), anyres.tile, anyres.tile)
        parts = [images.resize(image, *self.overview, self.resample), *tiles]
        return np.stack([self._numbers(self._fitted(part)) for part in parts])

    @property
    def overview(self) -> tuple[int, int]:
        """The size to which LLaVA-NeXT scales the whole of a picture, whatever its shape."""
        edge = self.size.get("shortest_edge", 0)
        return self.size.get("height", edge), self.size.get("width", edge)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if not self.resizes:
            return height, width
        if "height" in self.size:
            return self.size["height"], self.size["width"]
        short = self.size["shortest_edge"]
        long = int(short * max(height, width) / min(height, width))
        return (long, short) if width <= height else (short, long)

    def _fitted(self, image: Image.Image) -> Image.Image:
        longest = max(image.size)
        if self.pad is not None:
            height, width = self._resized(longest, longest)
            if self.resizes and height == width:
                _check(image.height, longest, _PASSED)
                image = resized_square(image, height, self.pad, self.resample)
            else:
                _check(longest, longest)
                image = images.resize(images.padded(image, longest, longest, self.pad), height, width, self.resample)
        elif self.resizes:
            size = self._resized(image.height, image.width)
            if self.crops and "shortest_edge" in self.size:
                return resized_centre(image, size, self.crop, self.resample)
            _check(*size)
            image = images.resize(image, *size, self.resample)
        return images.centre_crop(image, *self.crop) if self.crops else image

    def _numbers(self, image: Image.Image) -> np.ndarray:
        return images.normalised(image, self.mean, self.std, self.scale)


def _check(height: int, width: int, most: int = _MOST) -> None:
    if height * width > most:
        raise MediaError(
            f"The picture would come to have {width} x {height} pixels; {most} in all are allowed.",
            fix="give one that is less elongated",
        )
