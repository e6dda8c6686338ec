"""The sizes of a tower, read from the `vision_config` of either generation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bestiary.config import Config
from bestiary.errors import ConfigError
from bestiary.media.settings import Settings

_LARGEST = 1 << 20


@dataclass(frozen=True)
class Shape:
    """What a tower is made of."""

    depth: int
    dim: int
    heads: int
    hidden: int
    """Of the feed-forward blocks."""
    act: str
    out: int
    """Numbers of a row that goes to the language model."""
    channels: int
    patch: int
    """Pixels on a patch's side."""
    moments: int
    """Frames in a patch."""
    merge: int
    """Patches on the side of what becomes one row."""
    theta: float
    window: int | None = None
    """Merged patches on a window's side; None: every layer sees whole frames."""
    full: frozenset[int] = frozenset()
    """Layers that see whole frames where the others see windows."""
    tokens_per_second: int | None = None
    """Positions that a second of a video takes; None: each moment takes one."""

    @property
    def patch_numbers(self) -> int:
        """Numbers of one patch: all channels of all its frames' pixels."""
        return self.channels * self.moments * self.patch**2


def qwen2_vl(config: Config) -> Shape:
    """Of Qwen2-VL, whose `hidden_size` is that of the language model.  Raises ConfigError."""
    c = _vision(config)
    dim = c.whole("embed_dim", 1280, 1, _LARGEST)
    hidden = int(dim * c.number("mlp_ratio", 4, 1e-3, 1e3))
    return _checked(config, _shape(c, dim, hidden, "quick_gelu", c.whole("hidden_size", 3584, 1, _LARGEST)))


def qwen2_5_vl(config: Config) -> Shape:
    """Of Qwen2.5-VL.  Raises ConfigError."""
    c = _vision(config)
    dim = c.whole("hidden_size", 3584, 1, _LARGEST)
    hidden = c.whole("intermediate_size", 3420, 1, _LARGEST)
    made = _shape(c, dim, hidden, "silu", c.whole("out_hidden_size", 3584, 1, _LARGEST))
    full = c.get("fullatt_block_indexes", (7, 15, 23, 31))
    if not isinstance(full, list | tuple) or not all(type(index) is int for index in full):
        raise c.wrong("fullatt_block_indexes", "a list of whole numbers")
    row = made.merge * made.patch
    window = c.whole("window_size", 112, row, _LARGEST) // row
    per_second = c.whole("tokens_per_second", 4, 1, 1000)
    return _checked(config, replace(made, window=window, full=frozenset(full), tokens_per_second=per_second))


def _vision(config: Config) -> Settings:
    part = config.part("vision_config")
    return Settings(part, part.origin)


def _shape(c: Settings, dim: int, hidden: int, act: str, out: int) -> Shape:
    """`act` is what the class takes for granted."""
    rope = c.part("rope_parameters") or Settings({}, c.where)
    if rope.text("rope_type", "axial") != "axial":
        raise rope.wrong("rope_type", '"axial"')
    return Shape(
        c.whole("depth", 32, 0, 1024),
        dim,
        c.whole("num_heads", 16, 1, 1024),
        hidden,
        c.text("hidden_act", act),
        out,
        c.whole("in_channels", 3, 3, 3),
        c.whole("patch_size", 14, 1, 256),
        c.whole("temporal_patch_size", 2, 1, 64),
        c.whole("spatial_merge_size", 2, 1, 64),
        rope.number("rope_theta", 10000.0, 1, 1e18),
    )


def _checked(config: Config, shape: Shape) -> Shape:
    if shape.dim % (4 * shape.heads):
        what = f"A tower of {shape.dim} numbers has not {shape.heads} heads that turn by rows and columns."
        raise ConfigError(what, where=f"{config.origin}, vision_config")
    if shape.out != config.text.hidden_size:
        raise ConfigError(
            f"The tower makes rows of {shape.out} numbers; the language model takes {config.text.hidden_size}.",
            where=f"{config.origin}, vision_config",
        )
    return shape
