"""adapter_config.json of a LoRA adapter, as Hugging Face's PEFT writes it: what is read, and what is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.errors import ConfigError, shown

MOST_PATTERN = 256
"""Characters of a pattern or of a module path; real ones have about 60."""
_ALPHA = 1e9
_ATOM = r"(?:[\w\-.]|\\[.\-dwsDWS]|\[\^?[\w\-.]+\])"
_SIMPLE = re.compile(rf"\^?(?:{_ATOM}(?:[*+?]|\{{\d{{1,3}}(?:,\d{{0,3}})?\}})?|\((?:\?:)?|\)(?![*+?{{])|\|)*\$?")
"""Regular expressions without repeated groups; with few groups and repetitions, matching takes polynomial time."""
_MOST_LOOPS, _MOST_GROUPS, _MOST_EXPRESSIONS = 3, 3, 16

# fmt: off
_HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "layers_pattern", "loftq_config", "lora_dropout", "lora_ga_config",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules",
    "task_type",
})
"""Fields that say how an adapter was trained, or that its tensors say better."""
_READ = frozenset({
    "alpha_pattern", "bias", "init_lora_weights", "layers_to_transform", "lora_alpha", "modules_to_save", "r",
    "rank_pattern", "target_parameters", "use_dora", "use_rslora",
})
# fmt: on
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that also change the weights of the model: their adapters fit that changed model only."""


@dataclass(frozen=True)
class PeftConfig:
    """The part of adapter_config.json that decides what an adapter computes."""

    rank: int
    alpha: float
    rslora: bool = False
    """The scaling is alpha / sqrt(rank), not alpha / rank (Kalajdzievski 2023)."""
    dora: bool = False
    """Weights have a learned magnitude (Liu et al. 2024)."""
    rank_pattern: tuple[tuple[re.Pattern[str], int], ...] = ()
    """Ranks by regular expression over module paths; the first that matches counts."""
    alpha_pattern: tuple[tuple[re.Pattern[str], float], ...] = ()
    targets: tuple[str, ...] | None = None
    """Ends of module paths; None where the file gives a regular expression or nothing."""
    target_parameters: tuple[str, ...] = ()
    """Ends of the paths of parameters that are no module's `weight`: stacked experts."""
    layers: tuple[int, ...] | None = None
    base: str | None = None
    """The model that it was trained on; a name only, which proves nothing."""
    version: str | None = None
    """Of PEFT, which writes it since 0.18."""

    def rank_of(self, path: str) -> int:
        """The rank of a module.  PEFT's rule: a pattern matches the end of the path, from the start of a part on."""
        return next((rank for pattern, rank in self.rank_pattern if pattern.match(path)), self.rank)

    def scaling(self, path: str) -> float:
        """What the product of a module's two matrices is multiplied by."""
        rank = self.rank_of(path)
        alpha = next((alpha for pattern, alpha in self.alpha_pattern if pattern.match(path)), self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    def is_target(self, path: str) -> bool:
        """Whether the configuration names this module, as far as it says so in names."""
        if self.targets is None:
            return True
        if not any(path == target or path.endswith(f".{target}") for target in self.targets):
            return False
        layer = re.match(r".*?\.[^.]*\.([0-9]{1,9})\.", path)
        return self.layers is None or (layer is not None and int(layer[1]) in self.layers)


def parse_config(raw: Mapping[str, Any], origin: str) -> PeftConfig:
    """Raises ConfigError, by the name of the field, for anything that would change the result and is not supported."""
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise ConfigError(
            f"The adapter is of the type {shown(kind)}; only LORA is served.",
            where=origin,
            fix="convert it to LoRA, or merge it into its model, with PEFT",
        )
    _refuse(raw, origin)
    targets, layers = raw.get("target_modules"), raw.get("layers_to_transform")
    return PeftConfig(
        rank=_rank(raw.get("r", 8), "r", origin),
        alpha=_alpha(raw.get("lora_alpha", 8), "lora_alpha", origin),
        rslora=_flag(raw, "use_rslora", origin),
        dora=_flag(raw, "use_dora", origin),
        rank_pattern=tuple(
            (pattern, _rank(value, f"rank_pattern, {shown(key)}", origin))
            for key, pattern, value in _patterns(raw, "rank_pattern", origin)
        ),
        alpha_pattern=tuple(
            (pattern, _alpha(value, f"alpha_pattern, {shown(key)}", origin))
            for key, pattern, value in _patterns(raw, "alpha_pattern", origin)
        ),
        targets=_names(targets, "target_modules", origin) if isinstance(targets, list) else None,
        target_parameters=_names(raw.get("target_parameters") or [], "target_parameters", origin),
        layers=None if layers is None or layers == [] else _layers(layers, origin),
        base=raw["base_model_name_or_path"] if isinstance(raw.get("base_model_name_or_path"), str) else None,
        version=raw["peft_version"] if isinstance(raw.get("peft_version"), str) else None,
    )


def _refuse(raw: Mapping[str, Any], origin: str) -> None:
    if raw.get("bias", "none") != "none":
        raise ConfigError(
            f'"bias" is {shown(raw["bias"])}: the adapter changes biases of the model, which is not supported.',
            where=origin,
            fix='train it with bias="none", or merge it into its model with PEFT',
        )
    if raw.get("modules_to_save"):
        raise ConfigError(
            f'"modules_to_save" is {shown(raw["modules_to_save"])}: the adapter replaces whole modules of the model, '
            "which is not supported.",
            where=origin,
            fix="merge it into its model with PEFT (merge_and_unload), and load the result",
        )
    start = raw.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise ConfigError(
            f'"init_lora_weights" is {shown(start)}: the adapter fits only a model whose weights PEFT has changed.',
            where=origin,
            fix="turn it into a plain LoRA adapter with PEFT (path_initial_model_for_weight_conversion)",
        )
    for key, value in raw.items():
        # A field of a newer PEFT that is switched off changes nothing, and one that is on may change anything.
        if key not in _HARMLESS and key not in _READ and value:
            raise ConfigError(
                f'"{key[:80]}" is {shown(value)}, which is not supported in adapters.',
                where=origin,
                fix="merge the adapter into its model with PEFT (merge_and_unload), and load the result",
            )


def _flag(raw: Mapping[str, Any], key: str, origin: str) -> bool:
    value = raw.get(key) or False
    if not isinstance(value, bool):
        raise ConfigError(f'"{key}" is {shown(value)}; true or false is due.', where=origin)
    return value


def _rank(value: object, key: str, origin: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 20:
        raise ConfigError(f'"{key}" is {shown(value)}; a rank of at least 1 is due.', where=origin)
    return value


def _alpha(value: object, key: str, origin: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_ALPHA <= value <= _ALPHA:
        raise ConfigError(f'"{key}" is {shown(value)}; a finite number is due.', where=origin)
    return float(value)


def _names(value: object, key: str, origin: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f'"{key}" is {shown(value)}; a list of names is due.', where=origin)
    return tuple(value)


def _layers(value: object, origin: str) -> tuple[int, ...]:
    given = value if isinstance(value, list) else [value]
    if not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in given):
        raise ConfigError(f'"layers_to_transform" is {shown(value)}; numbers of layers are due.', where=origin)
    return tuple(given)


def _patterns(raw: Mapping[str, Any], key: str, origin: str) -> Iterator[tuple[str, re.Pattern[str], Any]]:
    given = raw.get(key) or {}
    if not isinstance(given, dict):
        raise ConfigError(f'"{key}" is {shown(given)}; an object is due.', where=origin)
    expressions = 0
    for text, value in given.items():
        signs = text.replace("(?:", "(")
        loops, groups = sum(signs.count(sign) for sign in "*+?{"), signs.count("(")
        expressions += loops + groups > 0
        few = loops <= _MOST_LOOPS and groups <= _MOST_GROUPS and expressions <= _MOST_EXPRESSIONS
        if not few or len(text) > MOST_PATTERN or not _SIMPLE.fullmatch(text):
            raise ConfigError(
                f'"{key}" has the pattern {shown(text)}, which is not a simple one.',
                where=origin,
                fix=f"use paths of modules, and at most {_MOST_EXPRESSIONS} patterns with few of the signs * and (",
            )
        try:
            pattern = re.compile(rf"(.*\.)?({text})$")
        except re.error as error:
            raise ConfigError(f'"{key}" has the pattern {shown(text)}: {error}.', where=origin) from error
        yield text, pattern, value
