"""What a configuration says of how its model looks at pictures: the model and its processor read it alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bestiary.config import Config
from bestiary.errors import ConfigError, shown
from bestiary.media.settings import Settings
from bestiary_llava.anyres import Anyres

# What LlavaConfig and LlavaNextConfig take for granted: CLIP L/14 for pictures of 336 pixels.
CLIP_L14_336: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
_PATCHES = {"clip_vision_model": 32, "siglip_vision_model": 16}
"""The patch sizes that the classes of the towers take for granted."""
_PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
_MOST_TILES = 256
LARGEST = 1 << 14
"""Pixels of a side; no tower sees more at once."""


@dataclass(frozen=True)
class Sight:
    """From pixels to rows."""

    vision: Config
    """`vision_config`, with its `model_type`."""
    image_size: int
    """Pixels of a side of what the tower sees at once: a picture, or a tile of one."""
    side: int
    """Patches of the same."""
    layers: tuple[int, ...]
    """The states of the tower that are read, side by side; counted as transformers counts `hidden_states`, with 0 what
    enters the first layer."""
    skip: int
    """Rows of the tower that are left out: one for the strategy "default", which is meant for the class token."""
    rows: int
    """Of one picture or tile."""
    anyres: Anyres | None
    """How LLaVA-NeXT cuts pictures into tiles; None: they are seen whole."""


def read_sight(config: Config, *, any_resolution: bool = False) -> Sight:
    """`any_resolution`: of LLaVA-NeXT.  Raises ConfigError for what no model could be built from."""
    stated = config.get("vision_config") is not None
    vision = config.part("vision_config") if stated else Config(CLIP_L14_336, config.origin)
    kind = vision.get("model_type", "clip_vision_model")
    if not isinstance(kind, str) or kind not in _PATCHES:
        raise ConfigError(
            f"The vision tower is {shown(kind)}; those that are known are {', '.join(sorted(_PATCHES))}.",
            where=vision.origin,
        )
    settings = Settings(vision, vision.origin)
    image_size = settings.whole("image_size", 224, 1, LARGEST)
    patch_size = settings.whole("patch_size", _PATCHES[kind], 1, LARGEST)
    count = settings.whole("num_hidden_layers", 12, 1, 4096)
    side = image_size // patch_size
    if side == 0:
        raise ConfigError(f"A patch of {patch_size} pixels is larger than its picture.", where=vision.origin)
    strategy = config.get("vision_feature_select_strategy", "default")
    if strategy not in ("default", "full"):
        raise Settings(config, config.origin).wrong("vision_feature_select_strategy", '"default" or "full"')
    skip = int(strategy == "default")
    rows = side**2 + (kind == "clip_vision_model") - skip
    return Sight(
        vision=Config({**vision, "model_type": kind}, vision.origin),
        image_size=image_size,
        side=side,
        layers=_layers(config, count),
        skip=skip,
        rows=rows,
        anyres=_anyres(config, image_size, side, rows) if any_resolution else None,
    )


def _layers(config: Config, count: int) -> tuple[int, ...]:
    """`vision_feature_layer`, a number or a list of them, each as one from 0 to `count`."""
    stated = config.get("vision_feature_layer", -2)
    layers = stated if isinstance(stated, list | tuple) else [stated]
    if not 0 < len(layers) <= count + 1 or not all(type(it) is int and -count - 1 <= it <= count for it in layers):
        due = f"a whole number from {-count - 1} to {count}, or a list of them,"
        raise Settings(config, config.origin).wrong("vision_feature_layer", due)
    return tuple(layer % (count + 1) for layer in layers)


def _anyres(config: Config, tile: int, side: int, rows: int) -> Anyres:
    if rows != side**2:
        raise ConfigError(
            f"The tower gives {rows} rows of a tile, which do not fill a square of {side} x {side}.",
            where=config.origin,
            fix='"vision_feature_select_strategy" is "default" for CLIP, and "full" for SigLIP',
        )
    stated = config.get("image_grid_pinpoints") or _PINPOINTS
    return Anyres(tile, side, pinpoints(stated, tile, config.origin))


def pinpoints(stated: Any, tile: int, where: str) -> tuple[tuple[int, int], ...]:
    """`image_grid_pinpoints`, checked: heights and widths of whole tiles."""
    pairs = stated if isinstance(stated, list | tuple) else ()
    if not 0 < len(pairs) <= 1024 or not all(_fills(pair, tile) for pair in pairs):
        due = f"a list of [height, width], each a multiple of {tile} and {_MOST_TILES} tiles at most together,"
        raise Settings({"image_grid_pinpoints": stated}, where).wrong("image_grid_pinpoints", due)
    return tuple((height, width) for height, width in pairs)


def _fills(pair: Any, tile: int) -> bool:
    """Whether these are a height and a width that tiles fill."""
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return False
    whole = all(type(edge) is int and edge > 0 and edge % tile == 0 for edge in pair)
    return whole and pair[0] * pair[1] <= _MOST_TILES * tile**2
