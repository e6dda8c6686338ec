"""Opening a checkpoint that is stored quantised: what `Quantizer.load` names for every method of this package."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from bestiary.errors import ConfigError, shown
from bestiary.protocols import Checkpoint
from bestiary_quant.checkpoints.checkpoint import QuantizedCheckpoint
from bestiary_quant.checkpoints.resolver import READERS, check_asked, check_left, stated_method
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import Stored

log = logging.getLogger("bestiary_quant.checkpoints")

_CACHE_SCALES = (".k_scale", ".v_scale", ".q_scale", ".kv_scale", ".prob_scale", ".output_scale")
"""Scales with which a cache or an activation would be quantised; here neither is."""
_LEFT_PLAIN = (
    "modules_to_not_convert",
    "ignore",
    "ignored_layers",
    "exclude_modules",
    "llm_int8_skip_modules",
    "skip_modules",
)


def load(
    checkpoint: Checkpoint, quantization_config: Mapping[str, Any], asked: str | None = None
) -> QuantizedCheckpoint:
    """The checkpoint with each packed weight under its plain name; reads headers, and tensors that describe others.

    `quantization_config` is that of config.json, or `quantization` of an MLX model; `asked` is what the user said as
    quant=.  Raises ConfigError for a configuration out of bounds, CheckpointError where tensors do not agree with it or
    with each other, OptionError where `asked` is another scheme.
    """
    where = f"{checkpoint.origin}, config.json, quantization_config"
    if not isinstance(quantization_config, Mapping):
        raise ConfigError(f"quantization_config is {shown(quantization_config)}; an object is due.", where=where)
    method = stated_method(quantization_config, where)
    settings, stored = Settings(quantization_config, where), Stored(checkpoint)
    reader = import_module(f"bestiary_quant.checkpoints.{READERS[method]}")
    groups = list(reader.groups(stored, settings))
    check_asked(asked, method, {group.kind for group in groups}, where)
    taken = {name for group in groups for name in group.parts.values()}
    left = [name for name in stored.names if name not in taken]
    unused = [name for name in left if name.endswith(_CACHE_SCALES) and len(checkpoint.shape(name)) < 2]
    facts = [(name, checkpoint.dtype(name), len(checkpoint.shape(name))) for name in left]
    check_left(facts, method, settings.where, checkpoint.origin)
    plain = settings.names(*_LEFT_PLAIN)
    for group in groups:
        if (module := group.name.removesuffix(".weight")) in plain:
            raise stored.error(f'{settings.where} says that "{module}" is left plain, and its tensors are packed.')
    if not groups:
        log.warning("%s says %s, and none of the tensors is packed", where, method)
    log.info("%d weights packed as %s; unused: %s", len(groups), method, ", ".join(unused[:20]) or "none")
    return QuantizedCheckpoint(checkpoint, groups, unused)
