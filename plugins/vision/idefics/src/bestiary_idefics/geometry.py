"""The sizes that the network and the processor must agree on."""

from __future__ import annotations

from bestiary.config import Config
from bestiary.errors import ConfigError, shown
from bestiary_siglip.model import IDEFICS

_LARGEST = 64


def scale_factor(config: Config) -> int:
    """How many patches along each side become one row.  Raises ConfigError."""
    stated = config.get("scale_factor")
    value = 2 if stated is None else stated
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        raise ConfigError(
            f'"scale_factor" is {shown(value)}; a whole number from 1 to {_LARGEST} is due.', where=config.origin
        )
    return value


def tile_rows(config: Config, tile: int) -> int:
    """Rows that a square tile of so many pixels a side becomes.  Raises ConfigError where it is not cut evenly."""
    scale, vision = scale_factor(config), config.part("vision_config", IDEFICS)
    patch = vision.patch_size
    if isinstance(patch, bool) or not isinstance(patch, int) or patch < 1:
        raise ConfigError(f'"patch_size" is {shown(patch)}; a whole number above 0 is due.', where=vision.origin)
    side = tile // patch
    if side < 1 or side % scale:
        raise ConfigError(
            f"A tile of {tile} pixels has {side} patches a side, which are not cut into squares of {scale}.",
            where=config.origin,
            fix="max_image_size belongs to other weights: fetch preprocessor_config.json again",
        )
    return (side // scale) ** 2
