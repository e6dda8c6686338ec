"""What stands beside the weights of a model: its configuration, its tokenizer, and the texts that come with it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from bestiary.errors import BestiaryError
from bestiary.identified import Identified

log = logging.getLogger("bestiary_quant.writing")

_ENDINGS = (".json", ".jinja", ".txt", ".model", ".md", ".tiktoken")
_NEVER = ("config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json", "recipe.yaml")
_LARGEST = 256 << 20
"""Bytes of a file that is no weight."""
_WEIGHTS = (".index.json",)


def assets(identified: Identified) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files to copy, or of the tokenizer and the templates that weight files carry."""
    repository = identified.repository
    for name, size in repository.files().items():
        plain = "/" not in name or name.startswith("additional_chat_templates/")
        if (
            plain
            and name.endswith(_ENDINGS)
            and not name.endswith(_WEIGHTS)
            and name not in _NEVER
            and size <= _LARGEST
        ):
            yield name, repository.path(name).read_bytes()
    if "tokenizer.json" not in repository.files():
        yield from _carried(identified)


def configuration(identified: Identified, dtype: str, keys: Mapping[str, Mapping[str, Any]]) -> bytes:
    """config.json with the type of plain weights, and what is said of packed ones under `keys`."""
    stated = dict(identified.evidence.config)
    for gone in ("quantization_config", "quantization", "torch_dtype"):
        stated.pop(gone, None)
    return json.dumps({**stated, "dtype": dtype, **keys}, indent=2, default=list).encode()


def _carried(identified: Identified) -> Iterator[tuple[str, bytes]]:
    from bestiary.generation.carried import carried_text

    try:
        carried = carried_text(identified)
    except BestiaryError as error:
        log.warning("the tokenizer of the file is not written: %s", error.what)
        return
    if carried is None:
        return
    tokenizer = carried.tokenizer
    yield "tokenizer.json", tokenizer.backend.to_str().encode()
    named: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **tokenizer.special_tokens}
    templates = dict(carried.chat_templates)
    if set(templates) == {"default"}:
        named["chat_template"] = templates["default"]
    elif templates:
        named["chat_template"] = [{"name": name, "template": text} for name, text in sorted(templates.items())]
    yield "tokenizer_config.json", json.dumps(named, indent=2, ensure_ascii=False).encode()
    ends = sorted(carried.end_tokens)
    if ends:
        yield "generation_config.json", json.dumps({"eos_token_id": ends}).encode()
