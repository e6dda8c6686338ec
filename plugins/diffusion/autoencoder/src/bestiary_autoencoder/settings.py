"""What a config.json says of an autoencoder, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.errors import ConfigError, shown

# What diffusers' class takes for granted, and configurations may therefore leave out.
DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "force_upcast": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
_KINDS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
_MOST_BLOCKS, _MOST_LAYERS, _MOST_CHANNELS = 8, 64, 1 << 14


@dataclass(frozen=True)
class Settings:
    """The keys of diffusers' AutoencoderKL that shape the network, and how latents are scaled."""

    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    norm_num_groups: int
    force_upcast: bool
    use_quant_conv: bool
    use_post_quant_conv: bool
    mid_block_add_attention: bool
    scale: tuple[float, ...]
    """What latents are multiplied by, one number for all channels or one for each."""
    shift: tuple[float, ...]
    """What is taken from them before that."""


def read(config: Mapping[str, Any], origin: object = None) -> Settings:
    """Raises ConfigError for a value that cannot be."""
    c = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
    channels = c["block_out_channels"]
    if not isinstance(channels, list | tuple) or not 1 <= len(channels) <= _MOST_BLOCKS:
        due = f"a list of 1 to {_MOST_BLOCKS} whole numbers is due"
        raise ConfigError(f'"block_out_channels" is {shown(channels)}; {due}.', where=origin)
    groups = _whole("norm_num_groups", c["norm_num_groups"], _MOST_CHANNELS, origin)
    for value in channels:
        if _whole("block_out_channels", value, _MOST_CHANNELS, origin) % groups:
            what = f'"block_out_channels" has {value}, which {groups} "norm_num_groups" do not divide.'
            raise ConfigError(what, where=origin)
    for key, kind in _KINDS.items():
        stated = c.get(key)
        if stated is not None and (not isinstance(stated, list | tuple) or list(stated) != [kind] * len(channels)):
            due = f'"{kind}" for each of the {len(channels)} "block_out_channels" is due'
            raise ConfigError(f'"{key}" is {shown(stated)}; {due}.', where=origin)
    flags = ("force_upcast", "use_quant_conv", "use_post_quant_conv", "mid_block_add_attention")
    for key in flags:
        if not isinstance(c[key], bool):
            raise ConfigError(f'"{key}" is {shown(c[key])}; true or false is due.', where=origin)
    if c["act_fn"] not in ("silu", "swish"):
        raise ConfigError(
            f'"act_fn" is {shown(c["act_fn"])}; "silu" is due, which all autoencoders have.', where=origin
        )
    latent_channels = _whole("latent_channels", c["latent_channels"], _MOST_CHANNELS, origin)
    scale, shift = _scale(c, latent_channels, origin)
    return Settings(
        in_channels=_whole("in_channels", c["in_channels"], _MOST_CHANNELS, origin),
        out_channels=_whole("out_channels", c["out_channels"], _MOST_CHANNELS, origin),
        block_out_channels=tuple(channels),
        layers_per_block=_whole("layers_per_block", c["layers_per_block"], _MOST_LAYERS, origin),
        latent_channels=latent_channels,
        norm_num_groups=groups,
        **{key: c[key] for key in flags},
        scale=scale,
        shift=shift,
    )


def _scale(c: Mapping[str, Any], channels: int, origin: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    factor = _number("scaling_factor", c["scaling_factor"], origin)
    mean, std = c.get("latents_mean"), c.get("latents_std")
    if mean is None and std is None:
        return (factor,), (
            0.0 if c.get("shift_factor") is None else _number("shift_factor", c["shift_factor"], origin),
        )
    if c.get("shift_factor") is not None:
        raise ConfigError('"shift_factor" and "latents_mean" are both given; one is due.', where=origin)
    means = _numbers("latents_mean", mean, channels, origin)
    return tuple(factor / value for value in _numbers("latents_std", std, channels, origin)), means


def _numbers(key: str, values: object, count: int, origin: object) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or len(values) != count:
        due = f"a list of {count} numbers, one for each latent channel, is due"
        raise ConfigError(f'"{key}" is {shown(values)}; {due}.', where=origin)
    return tuple(_number(key, value, origin) for value in values)


def _whole(key: str, value: object, most: int, origin: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f'"{key}" has {shown(value)}; a whole number from 1 to {most} is due.', where=origin)
    return value


def _number(key: str, value: object, origin: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e6 <= value <= 1e6:
        raise ConfigError(f'"{key}" has {shown(value)}; a number is due.', where=origin)
    if value < 1e-6 and key in ("scaling_factor", "latents_std"):
        raise ConfigError(f'"{key}" has {shown(value)}; a number above zero is due.', where=origin)
    return float(value)
