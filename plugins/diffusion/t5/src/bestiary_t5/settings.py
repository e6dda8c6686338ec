"""What a configuration says of the encoder, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bestiary.config import Config
from bestiary.errors import ConfigError, shown

_WIDEST = 1 << 17
_COUNTS: dict[str, tuple[str, int, int]] = {
    "vocab_size": ("vocab_size", 1, 1 << 24),
    "d_model": ("hidden_size", 1, _WIDEST),
    "d_kv": ("head_dim", 1, _WIDEST),
    "d_ff": ("intermediate_size", 1, _WIDEST),
    "num_layers": ("num_hidden_layers", 1, 4096),
    "num_heads": ("num_attention_heads", 1, _WIDEST),
    "relative_attention_num_buckets": ("", 4, 1 << 16),
    "relative_attention_max_distance": ("", 2, 1 << 24),
}
"""By T5's key: the name that other families and GGUF files have for it, the least and the most."""
_DEFAULTS = {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}
_GATED = "gated-"


@dataclass(frozen=True)
class Settings:
    """The sizes by the names of T5's config.json, and what follows from its words."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    relative_attention_num_buckets: int
    relative_attention_max_distance: int
    eps: float
    act: str
    """A name of `bestiary.nn.activation`."""
    gated: bool
    bias_everywhere: bool
    """Whether each layer has a table of its own for the bias by distance (UMT5), or all share that of the first."""


def settings(config: Config) -> Settings:
    """Raises ConfigError for a key that is absent, of another type or out of bounds."""
    kind = config.get("model_type", "t5")
    counts = {key: _count(config, key, *rest) for key, rest in _COUNTS.items()}
    if counts["relative_attention_max_distance"] <= counts["relative_attention_num_buckets"] // 4:
        raise ConfigError(
            f'"relative_attention_max_distance" is {counts["relative_attention_max_distance"]}, less than a quarter of '
            f"the {counts['relative_attention_num_buckets']} buckets spans.",
            where=config.origin,
        )
    act, gated = _feed_forward(config, "relu" if kind == "t5" else "gated-gelu")
    return Settings(**counts, eps=_eps(config), act=act, gated=gated, bias_everywhere=kind == "umt5")


def _count(config: Config, key: str, other: str, least: int, most: int) -> int:
    value = config.get(key, config.get(other, _DEFAULTS.get(key)))
    if value is None:
        value = getattr(config, key)  # the error that says where
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        due = f"a whole number from {least} to {most}"
        raise ConfigError(f'"{key}" is {shown(value)}; {due} is due.', where=config.origin)
    return value


def _eps(config: Config) -> float:
    value: Any = next((config[key] for key in ("layer_norm_epsilon", "rms_norm_eps") if key in config), 1e-6)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f'"layer_norm_epsilon" is {shown(value)}; a number from 0 to 1 is due.', where=config.origin)
    return float(value)


def _feed_forward(config: Config, default: str) -> tuple[str, bool]:
    """The activation, and whether a gate goes through it: "relu", "gated-gelu".

    `dense_act_fn` and `is_gated_act` say it once more in newer files; who wrote them apart meant them.
    """
    stated = config.get("feed_forward_proj", default)
    if not isinstance(stated, str):
        raise ConfigError(f'"feed_forward_proj" is {shown(stated)}; a word is due.', where=config.origin)
    gated = config.get("is_gated_act", stated.startswith(_GATED))
    if not isinstance(gated, bool):
        raise ConfigError(f'"is_gated_act" is {shown(gated)}; true or false is due.', where=config.origin)
    # The released gated models have the approximation of GELU by tanh, whatever the word says.
    usual = "gelu_new" if stated == "gated-gelu" else stated.removeprefix(_GATED)
    act = config.get("dense_act_fn", usual)
    if not isinstance(act, str):
        raise ConfigError(f'"dense_act_fn" is {shown(act)}; a word is due.', where=config.origin)
    return act, gated
