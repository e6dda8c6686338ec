"""How positions are stretched, as GGUF says it: the opposite of `bestiary_quant.gguf.rotary`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bestiary.errors import OptionError
from bestiary_quant.writing.values import Pairs, f32, text, u32


def rope_pairs(rope: Mapping[str, Any], architecture: str) -> Pairs:
    """The keys of one set of rotary parameters.  Raises OptionError for a kind that GGUF does not know."""
    prefix = f"{architecture}.rope."
    pairs = {f"{prefix}freq_base": f32(rope["rope_theta"])}
    kind = rope["rope_type"]
    original = rope.get("original_max_position_embeddings")
    if rope.get("llama_4_scaling_beta") is not None or kind not in ("default", "linear", "yarn", "llama3", "longrope"):
        what = "queries that grow with the position" if kind in ("yarn", "default") else f"the rope_type {kind}"
        raise OptionError(f"GGUF files of the architecture {architecture} do not know {what}.")
    if kind in ("linear", "yarn", "longrope"):
        pairs[f"{prefix}scaling.type"] = text(kind)
    if kind in ("linear", "yarn"):
        pairs[f"{prefix}scaling.factor"] = f32(rope["factor"])
    if kind in ("yarn", "longrope") and original is not None:
        pairs[f"{prefix}scaling.original_context_length"] = u32(original)
    if kind == "yarn":
        for key in ("beta_fast", "beta_slow"):
            if rope.get(key) is not None:
                pairs[f"{prefix}scaling.yarn_{key}"] = f32(rope[key])
        if (extra := _extra(rope)) is not None:
            # Not yarn_attn_factor, which llama.cpp reads for Grok alone.
            pairs[f"{prefix}scaling.attn_factor"] = f32(extra)
    if kind == "longrope" and rope.get("attention_factor") is not None:
        pairs[f"{prefix}scaling.attn_factor"] = f32(rope["attention_factor"])
    return pairs


def rope_tensors(rope: Mapping[str, Any], head_dim: int) -> dict[str, list[float]]:
    """Numbers that files have as tensors of float32, by name."""
    if rope["rope_type"] == "llama3":
        return {"rope_freqs.weight": llama3_factors(rope, head_dim)}
    if rope["rope_type"] == "longrope":
        return {f"rope_factors_{length}.weight": list(rope[f"{length}_factor"]) for length in ("long", "short")}
    return {}


def llama3_factors(rope: Mapping[str, Any], head_dim: int) -> list[float]:
    """What each pair's angle is divided by (Llama 3.1; llama.cpp, conversion/llama.py, generate_extra_tensors)."""
    low, high, factor = rope.get("low_freq_factor", 1.0), rope.get("high_freq_factor", 4.0), rope["factor"]
    made = []
    for pair in range(0, head_dim, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (pair / head_dim)
        turns = rope["original_max_position_embeddings"] / wave
        if turns > high:
            made.append(1.0)
        elif turns < low:
            made.append(float(factor))
        else:
            smooth = (turns - low) / (high - low)
            made.append(1 / ((1 - smooth) / factor + smooth))
    return made


def _extra(rope: Mapping[str, Any]) -> float | None:
    """The part of the magnitude that YaRN's own, 0.1 ln(factor) + 1, does not have."""
    factor = rope["factor"]
    usual = _magnitude(factor)
    stated = rope.get("attention_factor")
    if stated is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        stated = _magnitude(factor, rope["mscale"]) / _magnitude(factor, rope["mscale_all_dim"])
    return None if stated is None or math.isclose(stated, usual, rel_tol=1e-6) else stated / usual


def _magnitude(factor: float, scale: float = 1.0) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1.0 else 1.0
