"""What is done to a picture before the tower sees it, as the image processors of CLIP, SigLIP and LLaVA do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bestiary.errors import MediaError
from bestiary.media import images
from bestiary.media.settings import Colours, Settings
from bestiary_llava.anyres import Anyres
from bestiary_llava.resampling import resized_centre, resized_square
from bestiary_llava.sight import LARGEST

_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_SIGLIP = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
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
    mean: Colours
    std: Colours
    scale: float

    @classmethod
    def read(cls, settings: Settings, kind: str) -> Pictures:
        """`kind` is the class of the image processor: it says what stands for what is not stated.

        Raises ConfigError.
        """
        siglip = kind == "SiglipImageProcessor"
        known = _SIGLIP if siglip else _CLIP
        mean, std, scale = settings.scaling(*known)
        if "pad_size" in settings:
            raise settings.wrong("pad_size", "null")
        square = {"height": 224, "width": 224}
        # Only LLaVA's own class pads pictures; what the others pad is batches.
        pads = settings.flag("do_pad", False) and kind == "LlavaImageProcessor"
        red, green, blue = colour = settings.colours("image_mean", known[0])
        if pads and not all(0 <= value < 256 / 255 for value in colour):
            raise settings.wrong("image_mean", "a list of three numbers from 0 to 1")
        return cls(
            resizes=settings.flag("do_resize", True),
            size=_size(settings, "size", square if siglip else {"shortest_edge": 224}),
            resample=settings.resample(Image.Resampling.BICUBIC),
            crops=settings.flag("do_center_crop", not siglip),
            crop=_sides(_size(settings, "crop_size", square)),
            pad=(int(red * 255), int(green * 255), int(blue * 255)) if pads else None,
            mean=mean,
            std=std,
            scale=scale,
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
        return _sides(self.size)

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


def _size(settings: Settings, key: str, default: Mapping[str, int]) -> Mapping[str, int]:
    """{"height", "width"}, or {"shortest_edge"}, for which a number may stand."""
    value = settings.get(key, default)
    if not isinstance(value, Mapping):
        return {"shortest_edge": settings.whole(key, 0, 1, LARGEST)}
    edges = Settings(value, f"{settings.where}, {key}")
    stated = {name for name in value if name in edges}
    if stated not in ({"height", "width"}, {"shortest_edge"}):
        raise settings.wrong(key, '{"height", "width"} or {"shortest_edge"}')
    return {name: edges.whole(name, 0, 1, LARGEST) for name in stated}


def _sides(size: Mapping[str, int]) -> tuple[int, int]:
    """Height and width, where an edge alone stands for both."""
    edge = size.get("shortest_edge", 0)
    return size.get("height", edge), size.get("width", edge)


def _check(height: int, width: int, most: int = _MOST) -> None:
    if height * width > most:
        raise MediaError(
            f"The picture would come to have {width} x {height} pixels; {most} in all are allowed.",
            fix="give one that is less elongated",
        )
