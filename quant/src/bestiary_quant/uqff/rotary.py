"""Rows of queries and keys in the order of llama.cpp, in folders that mistral.rs made of GGUF files.

There the rows of a head are the pairs that are rotated, (0, 0'), (1, 1'), and config.json says so: its key
`_mistralrs_qk_rope_layout` is "adjacent" (mistralrs-core/src/pipeline/loaders/mod.rs).  Elsewhere the halves of a head
lie one behind the other, "half_split".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bestiary.errors import CheckpointError, ConfigError, shown

KEY = "_mistralrs_qk_rope_layout"
_WHOLE = ("llama", "mistral", "ministral", "smollm3", "granite")
"""Types of models that rotate whole heads of queries and keys."""
_MOST_HEADS = 1 << 16


@dataclass(frozen=True)
class Pairs:
    """Heads whose rows are pairs."""

    queries: int
    keys: int
    origin: str

    def order(self, name: str, rows: int) -> torch.Tensor | None:
        """Which rows of a weight or bias follow each other in the order of Hugging Face; None where they do already."""
        module = name.split(".")[-2] if "." in name else ""
        if module not in ("q_proj", "k_proj"):
            return None
        heads = self.queries if module == "q_proj" else self.keys
        if rows % (2 * heads):
            raise CheckpointError(f"{name} has {rows} rows, which are no pairs in {heads} heads.", where=self.origin)
        return torch.arange(rows).view(heads, -1, 2).transpose(1, 2).flatten()


def pairs(config: Mapping[str, Any], origin: str) -> Pairs | None:
    """What config.json says; None where rows are in the order of Hugging Face.  Raises ConfigError."""
    layout = config.get(KEY, "half_split")
    if layout == "half_split":
        return None
    if layout != "adjacent":
        raise ConfigError(f'"{KEY}" is {shown(layout)}; "adjacent" or "half_split" is due.', where=origin)
    if config.get("model_type") not in _WHOLE:
        raise ConfigError(
            f'"{KEY}" is "adjacent", which is not read for models of the type {shown(config.get("model_type"))}.',
            where=origin,
            fix="make the UQFF of the original model, and not of a GGUF file",
        )
    queries = config.get("num_attention_heads")
    keys = config.get("num_key_value_heads", queries)
    for heads in (queries, keys):
        if isinstance(heads, bool) or not isinstance(heads, int) or not 1 <= heads <= _MOST_HEADS:
            raise ConfigError(f"{shown(heads)} is no number of heads.", where=origin)
    return Pairs(int(queries or 0), int(keys or 0), origin)
