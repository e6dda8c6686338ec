"""How a GGUF file stretches positions: from its metadata and factors to `rope_scaling` of config.json."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from bestiary.errors import CheckpointError
from bestiary_quant.gguf.header import Entry
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf.single import shortest

MAX_FACTORS = 4096
"""Pairs of dimensions that turn; heads of eight thousand dimensions do not exist."""

Content = Callable[[str], bytes]
"""Reads the bytes of one small tensor, by name."""


def rope_scaling(
    metadata: Metadata, architecture: str, context: int | None, tensors: Mapping[str, Entry], content: Content
) -> dict[str, Any] | None:
    """`rope_scaling` of config.json, or None where positions are not stretched."""
    prefix = f"{architecture}.rope.scaling."
    factor = metadata.number(prefix + "factor") or 1.0
    original = metadata.whole(prefix + "original_context_length")
    magnitude = shortest(metadata.number(prefix + "attn_factor"))
    if "rope_freqs.weight" in tensors:
        # Llama 3.1: the file holds what its formula gives for each pair, and not the formula's parameters.
        factors = _factors("rope_freqs.weight", tensors, metadata.origin, content)
        same = {"short_factor": factors, "long_factor": factors}
        return _long(same, original or context, 1.0)
    if "rope_factors_long.weight" in tensors and "rope_factors_short.weight" in tensors:
        both = {
            f"{length}_factor": _factors(f"rope_factors_{length}.weight", tensors, metadata.origin, content)
            for length in ("short", "long")
        }
        return _long(both, original, magnitude)
    kind = metadata.text(prefix + "type")
    if kind == "linear" or (kind is None and factor != 1.0):
        return None if factor == 1.0 else {"rope_type": "linear", "factor": shortest(factor)}
    if kind != "yarn":
        return None
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": shortest(factor)}
    if original is not None:
        scaling["original_max_position_embeddings"] = original
    for key in ("beta_fast", "beta_slow"):
        if (value := metadata.number(f"{prefix}yarn_{key}")) is not None:
            scaling[key] = shortest(value)
    extra = metadata.number(prefix + "yarn_attn_factor") or magnitude or 1.0
    if extra != 1.0:  # on top of the magnitude of YaRN, in place of which configurations state the product
        scaling["attention_factor"] = extra * (0.1 * math.log(factor) + 1.0 if factor > 1.0 else 1.0)
    return scaling


def _long(factors: Mapping[str, list[float]], original: int | None, magnitude: float | None) -> dict[str, Any]:
    optional = {"original_max_position_embeddings": original, "attention_factor": magnitude}
    given = {key: value for key, value in optional.items() if value is not None}
    return {"rope_type": "longrope", **factors, **given}


def _factors(name: str, tensors: Mapping[str, Entry], origin: str, content: Content) -> list[float]:
    count, kind = math.prod(tensors[name].shape), tensors[name].kind.name
    if kind != "F32" or count > MAX_FACTORS:
        raise CheckpointError(
            f"The rotary factors {name} are {count} numbers of type {kind}; up to {MAX_FACTORS} of F32 are due.",
            where=origin,
        )
    return list(struct.unpack(f"<{count}f", content(name)))
