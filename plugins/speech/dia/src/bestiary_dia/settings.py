"""What a config.json says of the network, checked: that of transformers, or that of the first checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.config import Config, normalise
from bestiary.errors import ConfigError, shown
from bestiary.speech.delay import Pattern

# What transformers' classes take for granted, and configurations may therefore leave out.
_ENCODER: dict[str, Any] = {
    "num_hidden_layers": 12,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "intermediate_size": 4096,
    "vocab_size": 256,
    "max_position_embeddings": 1024,
    "norm_eps": 1e-5,
    "hidden_act": "silu",
}
_DECODER: dict[str, Any] = {
    **_ENCODER,
    "num_hidden_layers": 18,
    "hidden_size": 2048,
    "num_key_value_heads": 4,
    "intermediate_size": 8192,
    "vocab_size": 1028,
    "max_position_embeddings": 3072,
    "cross_num_attention_heads": 16,
    "cross_num_key_value_heads": 16,
    "cross_head_dim": 128,
    "num_channels": 9,
}
_IDS = {"eos_token_id": 1024, "pad_token_id": 1025, "bos_token_id": 1026}
_DELAYS = (0, 8, 9, 10, 11, 12, 13, 14, 15)
_BOUNDS = {
    "num_hidden_layers": 1 << 10,
    "hidden_size": 1 << 17,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "head_dim": 1 << 12,
    "intermediate_size": 1 << 18,
    "vocab_size": 1 << 20,
    "max_position_embeddings": 1 << 20,
    "cross_num_attention_heads": 1 << 12,
    "cross_num_key_value_heads": 1 << 12,
    "cross_head_dim": 1 << 12,
    "num_channels": 64,
}
_LONGEST_DELAY = 1 << 10
# Of the first checkpoint: what transformers calls it, and what it is called there.
_FIRST_ENCODER = {
    "num_hidden_layers": "n_layer",
    "hidden_size": "n_embd",
    "intermediate_size": "n_hidden",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "n_head",
    "head_dim": "head_dim",
}
_FIRST_DECODER = {
    "num_hidden_layers": "n_layer",
    "hidden_size": "n_embd",
    "intermediate_size": "n_hidden",
    "num_attention_heads": "gqa_query_heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "gqa_head_dim",
    "cross_num_attention_heads": "cross_query_heads",
    "cross_num_key_value_heads": "cross_query_heads",
    "cross_head_dim": "cross_head_dim",
}
_FIRST_IDS = {"eos_token_id": "audio_eos_value", "pad_token_id": "audio_pad_value", "bos_token_id": "audio_bos_value"}


@dataclass(frozen=True)
class Settings:
    """Both halves, with transformers' keys, and the pattern in which the decoder writes."""

    encoder: Config
    decoder: Config
    pattern: Pattern


def read(config: Config) -> Settings:
    """Raises ConfigError for a value that cannot be."""
    values = _from_first(config) if "model" in config and "data" in config else config
    ids = {key: values[key] for key in _IDS if values.get(key) is not None}  # where older files have them
    encoder = _half(values, "encoder_config", _ENCODER, config.origin)
    decoder = _half(values, "decoder_config", {**_DECODER, **_IDS, **ids}, config.origin)
    if decoder.get("cross_hidden_size", encoder.hidden_size) != encoder.hidden_size:
        what = f'"cross_hidden_size" is {shown(decoder.cross_hidden_size)}, and the encoder has {encoder.hidden_size}.'
        raise ConfigError(what, where=decoder.origin)
    return Settings(encoder, decoder, _pattern(values.get("delay_pattern"), decoder))


def _from_first(config: Config) -> dict[str, Any]:
    """The configuration of the first checkpoint, with transformers' keys."""
    model, data = config.part("model"), config.part("data")
    sides = {"encoder": (_FIRST_ENCODER, "src_vocab_size", "text_length")}
    sides["decoder"] = (_FIRST_DECODER, "tgt_vocab_size", "audio_length")
    made: dict[str, Any] = {"delay_pattern": data.get("delay_pattern")}
    for side, (keys, vocabulary, length) in sides.items():
        own = model.part(side)
        given = {ours: own.get(theirs) for ours, theirs in keys.items()}
        given |= {"vocab_size": model.get(vocabulary), "max_position_embeddings": data.get(length)}
        given |= {"norm_eps": model.get("normalization_layer_epsilon"), "rope_theta": model.get("rope_max_timescale")}
        made[f"{side}_config"] = {key: value for key, value in given.items() if value is not None}
    made["decoder_config"]["num_channels"] = data.get("channels", len(_DELAYS))
    return {**made, **{ours: data.get(theirs) for ours, theirs in _FIRST_IDS.items()}}


def _half(values: Mapping[str, Any], name: str, defaults: Mapping[str, Any], origin: str) -> Config:
    stated = values.get(name) or {}
    if not isinstance(stated, Mapping):
        raise ConfigError(f'"{name}" is {shown(stated)}; an object is due.', where=origin)
    given = {key: value for key, value in stated.items() if value is not None}
    half = normalise({**defaults, **given}, f"{origin}, {name}")
    for key, most in _BOUNDS.items():
        if key in half:
            _check_whole(key, half[key], 1, most, half.origin)
    for heads, groups in (("num_attention_heads", "num_key_value_heads"),) + (
        (("cross_num_attention_heads", "cross_num_key_value_heads"),) if "cross_head_dim" in half else ()
    ):
        if half[heads] % half[groups]:
            what = f'"{heads}" is {half[heads]}, no multiple of "{groups}", {half[groups]}.'
            raise ConfigError(what, where=half.origin)
    if half.head_dim % 2:
        raise ConfigError(f'"head_dim" is {half.head_dim}; an even number is due.', where=half.origin)
    eps = half.norm_eps
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 <= eps < 1:
        raise ConfigError(f'"norm_eps" is {shown(eps)}; a number from 0 to 1 is due.', where=half.origin)
    if not isinstance(half.hidden_act, str):
        raise ConfigError(f'"hidden_act" is {shown(half.hidden_act)}; a name is due.', where=half.origin)
    return half


def _pattern(delays: Any, decoder: Config) -> Pattern:
    given = _DELAYS if delays is None else delays
    if not isinstance(given, list | tuple) or len(given) != decoder.num_channels:
        what = f'"delay_pattern" is {shown(given)}; one number for each of {decoder.num_channels} codebooks is due.'
        raise ConfigError(what, where=decoder.origin)
    for delay in given:
        _check_whole("delay_pattern", delay, 0, _LONGEST_DELAY, decoder.origin)
    if given[0]:
        what = f'"delay_pattern" begins with {given[0]}; the first codebook, which tells the end, has no delay.'
        raise ConfigError(what, where=decoder.origin)
    ids = {}
    for key in _IDS:
        value = decoder[key]
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        _check_whole(key, value, 1, decoder.vocab_size - 1, decoder.origin)
        ids[key.removesuffix("_token_id")] = value
    if ids["eos"] >= min(ids["pad"], ids["bos"]):
        what = "The id of the end is not the least of those that are no sound."
        raise ConfigError(what, where=decoder.origin)
    return Pattern(tuple(given), **ids)


def _check_whole(key: str, value: object, least: int, most: int, origin: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f'"{key}" has {shown(value)}; a whole number from {least} to {most} is due.', where=origin)
