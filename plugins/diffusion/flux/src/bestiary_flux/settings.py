"""The numbers in a transformer's config.json, checked, and what diffusers takes for granted where they are absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bestiary.config import Config
from bestiary.errors import ConfigError, shown

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": False,
        "axes_dims_rope": (16, 56, 56),
    }
)
_MOST = {"patch_size": 64, "num_layers": 4096, "num_single_layers": 4096}
_LARGEST = 1 << 16


@dataclass(frozen=True)
class Settings:
    """What the transformer is built of; the names are those of diffusers' FluxTransformer2DModel."""

    patch_size: int
    in_channels: int
    out_channels: int
    num_layers: int
    num_single_layers: int
    attention_head_dim: int
    num_attention_heads: int
    joint_attention_dim: int
    pooled_projection_dim: int
    guidance_embeds: bool
    axes_dims_rope: tuple[int, ...]
    """Dimensions of a head that turn by each axis of a position."""

    @property
    def dim(self) -> int:
        """The width of the sequence."""
        return self.num_attention_heads * self.attention_head_dim

    @classmethod
    def of(cls, config: Config) -> Settings:
        """Raises ConfigError for a value that cannot be."""
        given = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
        given.setdefault("out_channels", given["in_channels"])
        for key in cls.__annotations__:
            if key not in ("guidance_embeds", "axes_dims_rope"):
                _check_whole(key, given[key], config.origin)
        if not isinstance(given["guidance_embeds"], bool):
            raise ConfigError(
                f'"guidance_embeds" is {shown(given["guidance_embeds"])}; true or false is due.', where=config.origin
            )
        axes = given["axes_dims_rope"] = _axes(given["axes_dims_rope"], config.origin)
        made = cls(**{key: given[key] for key in cls.__annotations__})
        if sum(axes) != made.attention_head_dim:
            raise ConfigError(
                f'"axes_dims_rope" {list(axes)} does not add up to "attention_head_dim", {made.attention_head_dim}.',
                where=config.origin,
            )
        if made.dim > _LARGEST:
            raise ConfigError(f"{made.dim} numbers for each token are more than {_LARGEST}.", where=config.origin)
        return made


def _check_whole(key: str, value: object, origin: str) -> None:
    most = _MOST.get(key, _LARGEST)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f'"{key}" is {shown(value)}; a whole number from 1 to {most} is due.', where=origin)


def _axes(value: object, origin: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ConfigError(f'"axes_dims_rope" is {shown(value)}; three whole numbers are due.', where=origin)
    for width in value:
        _check_whole("axes_dims_rope", width, origin)
        if width % 2:
            raise ConfigError(f'"axes_dims_rope" is {shown(value)}; even numbers are due.', where=origin)
    return tuple(value)
