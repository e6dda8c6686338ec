"""What a folder needs beside the weights, so that it is a model by itself: configuration, tokenizer, templates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bestiary.config import read_json
from bestiary.errors import ConfigError
from bestiary.protocols import Repository
from bestiary_quant.uqff.form import CONFIG
from bestiary_quant.uqff.rotary import KEY

COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "processor_config.json",
    "preprocessor_config.json",
)
"""Copied where the model has them."""
_BEFORE = ("quantization_config", "quantization", KEY)


def configuration(repository: Repository | None, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """config.json as it is to be written.  Raises ConfigError where there is none."""
    if config is None:
        if repository is None or CONFIG not in repository.files():
            raise ConfigError(
                "There is no config.json, without which a UQFF folder cannot be loaded.",
                where=None if repository is None else repository.origin,
                fix="give the configuration along, as config=",
            )
        config = read_json(repository.path(CONFIG))
    made: dict[str, Any] = _unquantised(config)
    _spell_rope(made)
    return made


def copy_assets(repository: Repository | None, config: Mapping[str, Any], folder: Path) -> None:
    """Write config.json, and copy what else the model has."""
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if repository is not None:
        for name in sorted(repository.files().keys() & set(COPIED)):
            shutil.copyfile(repository.path(name), folder / name)


def _unquantised(value: Any) -> Any:
    """Without what says how the weights were packed and ordered before."""
    if isinstance(value, Mapping):
        return {key: _unquantised(item) for key, item in value.items() if key not in _BEFORE}
    return [_unquantised(item) for item in value] if isinstance(value, list) else value


def _spell_rope(config: dict[str, Any]) -> None:
    """mistral.rs 0.9.5 reads `rope_theta` and `rope_scaling`, and not the `rope_parameters` of transformers 5."""
    for part in (config, config.get("text_config")):
        rope = part.get("rope_parameters") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(rope, dict) or "rope_theta" not in rope:
            continue
        part.setdefault("rope_theta", rope["rope_theta"])
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        if scaling.get("rope_type", "default") != "default":
            part.setdefault("rope_scaling", scaling)
