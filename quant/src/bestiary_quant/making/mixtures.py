"""Mixtures: which scheme each tensor of a model gets under a name such as "q4_k_m".

The choices are those of `llama_tensor_get_type_impl` in llama.cpp's llama-quant.cpp, for tensors under the names that
Hugging Face gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bestiary.errors import OptionError, shown
from bestiary.nearest import did_you_mean

MIXTURES: Mapping[str, str] = MappingProxyType(
    {
        "q2_k_s": "q2k",
        "q3_k_s": "q3k",
        "q3_k_m": "q3k",
        "q3_k_l": "q3k",
        "q4_k_s": "q4k",
        "q4_k_m": "q4k",
        "q5_k_s": "q5k",
        "q5_k_m": "q5k",
    }
)
"""Names, and the scheme of most tensors."""

_ROLES = (
    ("output", re.compile(r"(^|\.)lm_head\.weight$")),
    ("embedding", re.compile(r"(^|\.)embed_tokens\.weight$")),
    ("fused", re.compile(r"\.(qkv_proj|query_key_value|c_attn|wqkv)\.weight$")),
    ("value", re.compile(r"\.(v_proj|kv_b_proj)\.weight$")),
    ("key", re.compile(r"\.k_proj\.weight$")),
    ("attention output", re.compile(r"\.(self_attn|attention|attn)\.(o_proj|out_proj|dense|c_proj)\.weight$")),
    ("down", re.compile(r"\.(down_proj|w2)(\.weight)?$")),
)
_LAYER = re.compile(r"\.(\d{1,6})\.")


@dataclass(frozen=True)
class Traits:
    """What of a model the choices depend on."""

    layers: int
    heads_per_key: int = 1
    """Query heads that share a key head."""
    experts: int = 0


def assign(mixture: str, names: Iterable[str], traits: Traits) -> dict[str, str]:
    """The scheme of each of the weights `names`, all that are to be quantised.  Raises OptionError for another name.

    Without an output head among them, the embedding is taken for the head as well.
    """
    key = mixture.lower()
    if key not in MIXTURES:
        raise OptionError(
            f"There is no mixture {shown(mixture)}. {did_you_mean(key, MIXTURES)}".rstrip(),
            fix=f"one of {', '.join(MIXTURES)}",
        )
    roles = {name: _role(name) for name in names}
    values = sorted((name for name in roles if roles[name] in ("value", "fused")), key=_layer)
    place = {name: number for number, name in enumerate(values)}
    head = "output" if "output" in roles.values() else "embedding"
    made = {}
    for name, role in roles.items():
        if role == head:
            made[name] = "q6k"
        elif role in ("value", "fused"):
            made[name] = _value(key, role, place[name], len(values), traits)
        else:
            made[name] = _other(key, role, _layer(name), traits)
    return made


def _value(mixture: str, role: str, place: int, count: int, traits: Traits) -> str:
    if traits.experts == 8:
        return "q8_0"
    chosen = MIXTURES[mixture]
    if mixture == "q2_k_s" and traits.heads_per_key >= 4:
        chosen = "q4k"
    elif mixture == "q3_k_m":
        chosen = "q5k" if place < 2 else "q4k"
    elif mixture == "q3_k_l" or (mixture == "q4_k_s" and place < 4):
        chosen = "q5k"
    elif mixture in ("q4_k_m", "q5_k_m") and _more(place, count):
        chosen = "q6k"
    if traits.layers == 80 and traits.heads_per_key > 1 and chosen in ("q3k", "q4k"):
        chosen = "q5k"  # the 70B Llamas, whose value weights are so small that this costs nothing
    return chosen


def _other(mixture: str, role: str, layer: int, traits: Traits) -> str:
    base = MIXTURES[mixture]
    if role == "key" and traits.experts == 8:
        return "q8_0"
    if role == "attention output":
        if traits.experts == 8:
            return "q5k" if mixture in ("q3_k_s", "q3_k_m", "q4_k_s", "q4_k_m") else base
        return {"q3_k_m": "q4k", "q3_k_l": "q5k"}.get(mixture, base)
    if role == "down":
        first = layer < traits.layers // 8
        if mixture == "q3_k_m":
            return "q5k" if layer < traits.layers // 16 else "q4k"
        if mixture in ("q4_k_m", "q5_k_m"):
            return "q6k" if _more(layer, traits.layers) else base
        if mixture == "q3_k_l":
            return "q5k"
        return {"q2_k_s": "q4k", "q4_k_s": "q5k"}.get(mixture, base) if first else base
    return base


def _more(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between, get more bits."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _role(name: str) -> str:
    return next((role for role, pattern in _ROLES if pattern.search(name)), "")


def _layer(name: str) -> int:
    found = _LAYER.search(name)
    return int(found[1]) if found else 0
