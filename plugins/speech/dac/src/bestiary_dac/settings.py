"""What a config.json says of the codec, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from bestiary.errors import ConfigError, shown

# What transformers' DacConfig takes for granted, and configurations may therefore leave out.
DEFAULTS: dict[str, Any] = {
    "encoder_hidden_size": 64,
    "downsampling_ratios": (2, 4, 8, 8),
    "decoder_hidden_size": 1536,
    "n_codebooks": 9,
    "codebook_size": 1024,
    "codebook_dim": 8,
    "sampling_rate": 16000,
}
MOST_BLOCKS = 8
_BOUNDS = {
    "encoder_hidden_size": (1, 1 << 12),
    "decoder_hidden_size": (1, 1 << 14),
    "n_codebooks": (1, 256),
    "codebook_size": (1, 1 << 20),
    "codebook_dim": (1, 1 << 12),
    "sampling_rate": (1, 1 << 24),
}
_MOST_RATIO, _MOST_HIDDEN = 64, 1 << 16


@dataclass(frozen=True)
class Settings:
    """The keys of transformers' DacConfig that shape the network."""

    encoder_hidden_size: int
    downsampling_ratios: tuple[int, ...]
    decoder_hidden_size: int
    upsampling_ratios: tuple[int, ...]
    hidden_size: int
    """Channels between the encoder, the codebooks and the decoder."""
    n_codebooks: int
    codebook_size: int
    codebook_dim: int
    sampling_rate: int
    hop_length: int
    """Samples for which a frame of codes stands."""


def read(config: Mapping[str, Any], origin: object = None) -> Settings:
    """Raises ConfigError for a value that cannot be."""
    c = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
    whole = {key: _whole(key, c[key], least, most, origin) for key, (least, most) in _BOUNDS.items()}
    down = _ratios("downsampling_ratios", c["downsampling_ratios"], origin)
    up = _ratios("upsampling_ratios", c.get("upsampling_ratios", down[::-1]), origin)
    hop = _whole("hop_length", c.get("hop_length", prod(down)), 1, _MOST_RATIO**MOST_BLOCKS, origin)
    for name, product in (("downsampling_ratios", prod(down)), ("upsampling_ratios", prod(up))):
        if product != hop:
            raise ConfigError(f'"hop_length" is {hop}, and the product of "{name}" {product}.', where=origin)
    width = whole["decoder_hidden_size"]
    if width % (1 << len(up)):
        due = f"a multiple of {1 << len(up)}, which its {len(up)} blocks halve"
        raise ConfigError(f'"decoder_hidden_size" is {width}; {due}, is due.', where=origin)
    hidden = c.get("hidden_size", whole["encoder_hidden_size"] << len(down))
    return Settings(
        downsampling_ratios=down,
        upsampling_ratios=up,
        hidden_size=_whole("hidden_size", hidden, 1, _MOST_HIDDEN, origin),
        hop_length=hop,
        **whole,
    )


def _ratios(key: str, values: object, origin: object) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= MOST_BLOCKS:
        due = f"a list of 1 to {MOST_BLOCKS} whole numbers is due"
        raise ConfigError(f'"{key}" is {shown(values)}; {due}.', where=origin)
    return tuple(_whole(key, value, 2, _MOST_RATIO, origin) for value in values)


def _whole(key: str, value: object, least: int, most: int, origin: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        due = f"a whole number from {least} to {most} is due"
        raise ConfigError(f'"{key}" has {shown(value)}; {due}.', where=origin)
    return value
