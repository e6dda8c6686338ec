"""One spelling for every model configuration.

Plugins read a `Config`; the many spellings of ten years of config.json are resolved here and nowhere else:

    torch_dtype                                   -> dtype
    num_local_experts, n_routed_experts           -> num_experts
    hidden_activation                             -> hidden_act
    rope_theta, rope_scaling, rope_parameters,
    rope_local_base_freq, partial_rotary_factor   -> rope_parameters, one entry for each kind of layer
    sliding_window_pattern, use_sliding_window,
    max_window_layers                             -> layer_types, one entry for each layer
    text_config                                   -> a Config of its own, `config.text`
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bestiary.errors import ConfigError, shown
from bestiary.nearest import did_you_mean

FULL, SLIDING = "full_attention", "sliding_attention"

_RENAMES = {
    "torch_dtype": "dtype",
    "num_local_experts": "num_experts",
    "n_routed_experts": "num_experts",
    "hidden_activation": "hidden_act",
}
_LARGEST = 1 << 31
"""No honest config key that counts something reaches it; a larger one would only exhaust memory."""
_COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "max_position_embeddings",
    "sliding_window",
)
_MOST_LAYERS = 4096
_ROPE_NUMBERS: dict[str, tuple[float, float]] = {
    "rope_theta": (1.0, 1e18),
    "factor": (1e-6, 1e9),
    "partial_rotary_factor": (0.0, 1.0),
    "original_max_position_embeddings": (2, _LARGEST),
    **dict.fromkeys(
        (
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "low_freq_factor",
            "high_freq_factor",
        ),
        (0.0, 1e9),
    ),
}


class Config(Mapping[str, Any]):
    """A normalised, read-only configuration: keys are attributes, and an absent one is a ConfigError that says where.

    `config.get(key, default)` is for keys that may be absent; `config.text` is the language model's part.
    """

    def __init__(self, values: Mapping[str, Any], origin: str) -> None:
        self._values, self._origin = dict(values), origin

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            raise AttributeError(key)
        if key not in self._values:
            raise ConfigError(
                f'The configuration has no "{key}", which the architecture needs.',
                where=self._origin,
                fix=f"add it to the file. {did_you_mean(key, self._values)}".rstrip(),
            )
        return self._values[key]

    def __repr__(self) -> str:
        return f"Config({self._origin!r}, {self._values!r})"

    @property
    def origin(self) -> str:
        return self._origin

    @property
    def text(self) -> Config:
        """The language model's part: `text_config` where there is one, else the whole."""
        nested = self._values.get("text_config")
        return nested if isinstance(nested, Config) else self

    def part(self, name: str, defaults: Mapping[str, Any] | None = None) -> Config:
        """Another part, such as `vision_config`, with what its class takes for granted.  Raises ConfigError."""
        nested = self._values.get(name)
        if not isinstance(nested, Mapping):
            raise ConfigError(f'The configuration has no "{name}", which the architecture needs.', where=self._origin)
        given = {key: value for key, value in nested.items() if value is not None}
        return Config({**(defaults or {}), **given}, f"{self._origin}, {name}")

    def rope(self, kind: str = FULL) -> Mapping[str, Any]:
        """The rotary parameters of one kind of layer: rope_type, rope_theta and what the type needs."""
        parameters: Mapping[str, Mapping[str, Any]] = self.rope_parameters
        return parameters.get(kind) or parameters[FULL]

    def window(self, layer: int) -> int | None:
        """The sliding window of a layer in tokens, or None where it sees everything."""
        return self.sliding_window if self.layer_types[layer] == SLIDING else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a small file.  Raises ConfigError, with the line, for anything else."""
    if path.stat().st_size > 64 << 20:
        raise ConfigError("This JSON file is larger than 64 MB.", where=path, fix="check what it is")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"This file is not valid JSON: {error}.", where=path, fix="fetch the file again") from error
    if not isinstance(value, dict):
        raise ConfigError(f"This JSON file holds a {type(value).__name__}; an object is due.", where=path)
    return value


def normalise(raw: Mapping[str, Any], origin: str, defaults: Mapping[str, Any] | None = None) -> Config:
    """Resolve every spelling once.

    `defaults` are the keys that an architecture's checkpoints leave out; where the configuration nests a language model
    in `text_config`, they belong to it.
    """
    values = dict(raw)
    nested = values.get("text_config")
    if nested is not None and (not isinstance(nested, Mapping) or nested.get("text_config") is not None):
        raise ConfigError('"text_config" must be one language model, an object.', where=origin)
    if nested is not None:
        for shared in ("tie_word_embeddings", "torch_dtype", "dtype"):
            if shared in values and shared not in nested:
                nested = {**nested, shared: values[shared]}
        text = normalise(nested, f"{origin}, text_config", defaults)
        outer = {_RENAMES.get(key, key): value for key, value in values.items()}
        tied = {"tie_word_embeddings": text["tie_word_embeddings"]} if "tie_word_embeddings" in text else {}
        return Config({**tied, **outer, "text_config": text}, origin)

    given = {**(defaults or {}), **{key: value for key, value in values.items() if not _absent(key, value, defaults)}}
    for old, new in _RENAMES.items():
        if old in given:
            value = given.pop(old)
            if given.get(new) is None or old in values:
                given[new] = value if new not in values or values[new] is None else values[new]
    _check_counts(given, origin)
    if "hidden_size" in given and "num_attention_heads" in given:
        given["num_key_value_heads"] = given.get("num_key_value_heads") or given["num_attention_heads"]
        given["head_dim"] = given.get("head_dim") or given["hidden_size"] // given["num_attention_heads"]
    given["rope_parameters"] = MappingProxyType(_rope_parameters(given, origin))
    given["layer_types"] = _layer_types(given, origin)
    for used in ("rope_theta", "rope_scaling", "rope_local_base_freq", "sliding_window_pattern"):
        given.pop(used, None)
    return Config(given, origin)


def _absent(key: str, value: Any, defaults: Mapping[str, Any] | None) -> bool:
    # null means "as the family has it" for most keys, but "none" for a window or a cap.
    return value is None and key in (defaults or {}) and "window" not in key and "softcapping" not in key


def _check_counts(values: Mapping[str, Any], origin: str) -> None:
    for key in _COUNTS:
        value = values.get(key)
        if value is None:
            continue
        _check_whole(key, value, origin, _MOST_LAYERS if key == "num_hidden_layers" else _LARGEST)
    if values.get("num_attention_heads") == 0:
        raise ConfigError('"num_attention_heads" is 0.', where=origin)


def _check_whole(key: str, value: Any, origin: str, most: int = _LARGEST) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ConfigError(f'"{key}" is {shown(value)}; a whole number from 0 to {most} is due.', where=origin)


def _rope_parameters(values: Mapping[str, Any], origin: str) -> dict[str, Mapping[str, Any]]:
    """Parameters by kind of layer; a configuration with one set has it under `full_attention`."""
    stated = values.get("rope_parameters") or {}
    scaling = values.get("rope_scaling") or {}
    if not isinstance(stated, Mapping) or not isinstance(scaling, Mapping):
        raise ConfigError("rope_parameters and rope_scaling must be objects.", where=origin)
    if any(isinstance(value, Mapping) for value in stated.values()):
        kinds = {kind: dict(value) for kind, value in stated.items() if isinstance(value, Mapping)}
    else:
        kinds = {FULL: dict(scaling or stated)}
    if values.get("rope_local_base_freq") is not None and SLIDING not in kinds:
        # Gemma 3: local layers have their own base and no scaling.
        kinds[SLIDING] = {"rope_type": "default", "rope_theta": values["rope_local_base_freq"]}
    shared = {
        key: values[key]
        for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
        if values.get(key) is not None
    }
    return {
        kind: MappingProxyType(_complete_rope({"rope_theta": 10000.0, **shared, **parameters}, values, origin))
        for kind, parameters in kinds.items()
    }


def _complete_rope(stated: Mapping[str, Any], values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    parameters = {key: value for key, value in stated.items() if value is not None}
    old = parameters.pop("type", "default")
    kind = parameters.get("rope_type", old)
    if not isinstance(kind, str):
        raise ConfigError(f'"rope_type" is {shown(kind)}; a name is due.', where=origin)
    parameters["rope_type"] = {"su": "longrope", "mrope": "default"}.get(kind, kind)
    longest = parameters["max_position_embeddings"] = values.get("max_position_embeddings")
    if parameters["rope_type"] in ("llama3", "yarn", "longrope") and longest:
        parameters.setdefault("original_max_position_embeddings", longest)
    for key, (least, most) in _ROPE_NUMBERS.items():
        value = parameters.get(key, most)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigError(f'"{key}" is {shown(value)}; a number from {least} to {most} is due.', where=origin)
    return parameters


def _layer_types(values: dict[str, Any], origin: str) -> tuple[str, ...]:
    count = values.get("num_hidden_layers") or 0
    stated = values.get("layer_types")
    if stated is not None:
        if not isinstance(stated, list | tuple) or not all(isinstance(kind, str) for kind in stated):
            raise ConfigError(f'"layer_types" is {shown(stated)}; a list of names is due.', where=origin)
        if len(stated) < count:
            raise ConfigError(f'"layer_types" must name all {count} layers.', where=origin)
        return tuple(stated[:count])
    window = values.get("sliding_window")
    if values.get("use_sliding_window") is False or not window:
        return (FULL,) * count
    pattern = values.get("sliding_window_pattern")
    if pattern:
        _check_whole("sliding_window_pattern", pattern, origin)
        return tuple(SLIDING if (layer + 1) % pattern else FULL for layer in range(count))
    if values.get("use_sliding_window"):
        first = values.get("max_window_layers") or 0
        _check_whole("max_window_layers", first, origin)
        return tuple(SLIDING if layer >= first else FULL for layer in range(count))
    return (SLIDING,) * count
