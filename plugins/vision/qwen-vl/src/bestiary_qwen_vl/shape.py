"""The sizes of a tower, read from the `vision_config` of either generation."""

from __future__ import annotations

from dataclasses import dataclass

from bestiary.config import Config
from bestiary.errors import ConfigError, shown
from bestiary_qwen_vl.checking import number, whole

_LARGEST = 1 << 20
_COMMON = {
    "depth": 32,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_QWEN2 = {**_COMMON, "embed_dim": 1280, "hidden_size": 3584, "hidden_act": "quick_gelu", "mlp_ratio": 4}
_QWEN2_5 = {
    **_COMMON,
    "hidden_size": 3584,
    "hidden_act": "silu",
    "intermediate_size": 3420,
    "out_hidden_size": 3584,
    "tokens_per_second": 4,
    "window_size": 112,
    "fullatt_block_indexes": (7, 15, 23, 31),
}


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
    c = config.part("vision_config", _QWEN2)
    dim = whole(c, "embed_dim", 1, _LARGEST, c.origin)
    hidden = int(dim * number(c, "mlp_ratio", 1e-3, 1e3, c.origin))
    return _checked(config, _shape(c, dim, hidden, whole(c, "hidden_size", 1, _LARGEST, c.origin)))


def qwen2_5_vl(config: Config) -> Shape:
    """Of Qwen2.5-VL.  Raises ConfigError."""
    c = config.part("vision_config", _QWEN2_5)
    dim, hidden, out = (
        whole(c, key, 1, _LARGEST, c.origin) for key in ("hidden_size", "intermediate_size", "out_hidden_size")
    )
    made = _shape(c, dim, hidden, out)
    full = c.fullatt_block_indexes
    if not isinstance(full, list | tuple) or not all(type(index) is int for index in full):
        what = f'"fullatt_block_indexes" is {shown(full)}; a list of whole numbers is due.'
        raise ConfigError(what, where=c.origin)
    window = whole(c, "window_size", 1, _LARGEST, c.origin) // made.merge // made.patch
    if window < 1:
        raise ConfigError('"window_size" is smaller than what becomes one row.', where=c.origin)
    per_second = whole(c, "tokens_per_second", 1, 1000, c.origin)
    stated = {"window": window, "full": frozenset(full), "tokens_per_second": per_second}
    return _checked(config, Shape(**{**vars(made), **stated}))


def _shape(c: Config, dim: int, hidden: int, out: int) -> Shape:
    where = c.origin
    rope = c.get("rope_parameters") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", "axial") != "axial":
        raise ConfigError(f'"rope_parameters" is {shown(rope)}; the rope_type "axial" is due.', where=where)
    act = c.hidden_act
    if not isinstance(act, str):
        raise ConfigError(f'"hidden_act" is {shown(act)}; a name is due.', where=where)
    return Shape(
        whole(c, "depth", 0, 1024, where),
        dim,
        whole(c, "num_heads", 1, 1024, where),
        hidden,
        act,
        out,
        whole(c, "in_channels", 3, 3, where),
        whole(c, "patch_size", 1, 256, where),
        whole(c, "temporal_patch_size", 1, 64, where),
        whole(c, "spatial_merge_size", 1, 64, where),
        number({"rope_theta": 10000.0, **rope}, "rope_theta", 1, 1e18, where),
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
