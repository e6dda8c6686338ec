"""The configuration of an X-LoRA model: xlora_config.json, PEFT's adapter_config.json, and mistral.rs's ordering.

X-LoRA (Buehler & Buehler 2024, arXiv 2402.07148) mixes LoRA adapters anew for every token.  The authors' library and
mistral.rs have their configuration in xlora_config.json, and mistral.rs an ordering file beside it; PEFT has the same
fields in adapter_config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.errors import ConfigError, shown
from bestiary.nearest import did_you_mean

_MOST_DEPTH, _MOST_WIDTH = 64, 1 << 20
MOST_ADAPTERS = 256
_MOST_LAYERS = 100_000
_LARGEST = 1e9
# fmt: off
_HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "device", "inference_mode", "peft_type", "peft_version", "revision",
    "runtime_config", "stop_token_id", "task_type", "use_trainable_adapters", "xlora_dropout_p", "xlora_size",
})
"""Fields that say how it was trained, or that the tensors say better."""
_READ = frozenset({
    "adapters", "base_model_id", "enable_relu_and_dropout", "enable_softmax", "enable_softmax_topk",
    "global_scaling_weight", "hidden_size", "layerwise_scalings", "scaling_pass_value", "softmax_temperature",
    "top_k_lora", "use_bias", "xlora_depth",
})
# fmt: on


@dataclass(frozen=True)
class XLoraConfig:
    """What decides how scalings are made and used.  Names and defaults are those of PEFT and mistral.rs."""

    hidden_size: int
    adapters: tuple[tuple[str, str], ...] = ()
    """Names in their order, and where the adapters lay when the model was trained."""
    layerwise: bool = False
    """Every adapted layer has scalings of its own; else all share those of the token."""
    depth: int = 1
    """Linear layers of the classifier."""
    relu: bool = False
    """Between them; PEFT's classifiers always have it."""
    softmax: bool = True
    temperature: float = 1.0
    top_k: int | None = None
    """Only so many adapters of a token keep their scalings; the others' become zero."""
    softmax_top_k: bool = False
    """A softmax over those that are not zero."""
    pass_value: float = 0.0
    """The scaling of every adapter in the pass that the classifier reads."""
    weight: float = 1.0
    """A factor of all scalings."""
    base: str | None = None
    """mistral.rs's base_model_id."""


def parse_xlora_config(raw: Mapping[str, Any], origin: str) -> XLoraConfig:
    """Raises ConfigError, by the name of the field, for what is malformed and for what would change the result."""
    for key, value in raw.items():
        if key not in _HARMLESS and key not in _READ and value:
            raise ConfigError(
                f'"{key[:80]}" is {shown(value)}, which is not supported in X-LoRA.',
                where=origin,
                fix=did_you_mean(key, _READ) or None,
            )
    if "hidden_size" not in raw:
        raise ConfigError('The configuration has no "hidden_size".', where=origin)
    return XLoraConfig(
        hidden_size=_count(raw["hidden_size"], "hidden_size", origin, _MOST_WIDTH),
        adapters=_adapters(raw.get("adapters"), origin),
        layerwise=_flag(raw, "layerwise_scalings", False, origin),
        depth=_count(raw.get("xlora_depth", 1), "xlora_depth", origin, _MOST_DEPTH),
        relu=_flag(raw, "enable_relu_and_dropout", False, origin),
        softmax=_flag(raw, "enable_softmax", True, origin),
        temperature=_number(raw, "softmax_temperature", 1.0, origin, least=1e-6),
        top_k=None if raw.get("top_k_lora") is None else _count(raw["top_k_lora"], "top_k_lora", origin, MOST_ADAPTERS),
        softmax_top_k=_flag(raw, "enable_softmax_topk", False, origin),
        pass_value=_number(raw, "scaling_pass_value", 0.0, origin),
        weight=_number(raw, "global_scaling_weight", 1.0, origin),
        base=raw["base_model_id"] if isinstance(raw.get("base_model_id"), str) else None,
    )


@dataclass(frozen=True)
class XLoraOrder:
    """mistral.rs's ordering: which adapter is which of the classifier's, and which layer is which."""

    adapters: tuple[str, ...] | None = None
    """Names of the folders of the adapters."""
    layers: Mapping[str, int] | None = None
    """The number of each adapted layer's scalings, by the path of the layer."""
    base: str | None = None


def parse_order(raw: Mapping[str, Any], origin: str = "the ordering") -> XLoraOrder:
    """Raises ConfigError."""
    known = ("order", "layers", "base_model_id", "preload_adapters")
    for key in raw:
        if key not in known:
            fix = did_you_mean(key, known) or f"it may have {', '.join(known)}"
            raise ConfigError(f"The ordering has {shown(key)}, which means nothing.", where=origin, fix=fix)
    if raw.get("preload_adapters"):
        raise ConfigError(
            '"preload_adapters" of the ordering is not supported.',
            where=origin,
            fix="load plain LoRA adapters on the model without X-LoRA",
        )
    names, layers = raw.get("order"), raw.get("layers")
    if names is not None and (
        not isinstance(names, list)
        or not names
        or len(names) > MOST_ADAPTERS
        or not all(isinstance(name, str) and name for name in names)
        or len(set(names)) < len(names)
    ):
        raise ConfigError(f'"order" is {shown(names)}; the names of the adapters are due.', where=origin)
    if layers is not None and (
        not isinstance(layers, Mapping)
        or len(layers) > _MOST_LAYERS
        or not all(isinstance(path, str) and _is_count(number, 0, _MOST_LAYERS) for path, number in layers.items())
    ):
        raise ConfigError(f'"layers" is {shown(layers)}; numbers by the paths of layers are due.', where=origin)
    base = raw.get("base_model_id")
    return XLoraOrder(
        None if names is None else tuple(names),
        None if layers is None else dict(layers),
        base if isinstance(base, str) else None,
    )


def _adapters(value: object, origin: str) -> tuple[tuple[str, str], ...]:
    given = [] if value is None else value
    pairs: list[tuple[Any, Any]] = []
    if isinstance(given, dict):
        pairs = list(given.items())
    elif isinstance(given, list):
        pairs = [(name, name) for name in given]
    if (
        not isinstance(given, dict | list)
        or len(pairs) > MOST_ADAPTERS
        or not all(isinstance(part, str) and part for pair in pairs for part in pair)
    ):
        raise ConfigError(f'"adapters" is {shown(value)}; at most {MOST_ADAPTERS} names are due.', where=origin)
    return tuple(pairs)


def _is_count(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _count(value: object, key: str, origin: str, most: int) -> int:
    if not isinstance(value, int) or not _is_count(value, 1, most):
        raise ConfigError(f'"{key}" is {shown(value)}; a whole number from 1 to {most} is due.', where=origin)
    return value


def _flag(raw: Mapping[str, Any], key: str, default: bool, origin: str) -> bool:
    value = default if raw.get(key) is None else raw[key]
    if not isinstance(value, bool):
        raise ConfigError(f'"{key}" is {shown(value)}; true or false is due.', where=origin)
    return value


def _number(raw: Mapping[str, Any], key: str, default: float, origin: str, least: float = -_LARGEST) -> float:
    value = default if raw.get(key) is None else raw[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= _LARGEST:
        raise ConfigError(f'"{key}" is {shown(value)}; a number from {least:g} to {_LARGEST:g} is due.', where=origin)
    return float(value)
