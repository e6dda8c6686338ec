"""One picture, video or sound, ready for the encoder of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a `Processor` made of one medium."""

    kind: str
    """"image", "video" or "audio"."""
    tensors: Mapping[str, np.ndarray] = field(repr=False)
    """What the model's encoder takes, under the names of transformers ("pixel_values", "image_grid_thw")."""
    rows: int
    """Embeddings that the encoder makes of it: as many tokens of the prompt stand for it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the processor remembers for its text and positions, such as the grid of tiles."""

    @cached_property
    def digest(self) -> bytes:
        """A hash of all that the encoder sees: equal pictures are encoded once, and share what follows from them."""
        made = sha256(f"{self.kind} {self.rows}".encode())
        for name, tensor in sorted(self.tensors.items()):
            made.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
            made.update(np.ascontiguousarray(tensor).data)
        return made.digest()

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())
