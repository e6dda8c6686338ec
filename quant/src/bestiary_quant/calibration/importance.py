"""Importance: how much the errors of each column of a weight count, measured on a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from bestiary.errors import OptionError

TWINS = (("q_proj", "k_proj", "v_proj", "qkv_proj"), ("gate_proj", "up_proj", "gate_up_proj"))
"""Projections that are multiplied with the same input: what is known of one holds for all."""


@dataclass(frozen=True)
class Importance:
    """Sums of the squares of what weights were multiplied with, under the names of parameters."""

    values: Mapping[str, torch.Tensor]
    """By name [in], or [experts, in]; float32 or float64, finite and not negative."""
    counts: Mapping[str, torch.Tensor]
    """How many rows each sum has: int64 [1], or [experts] where they are counted apart."""
    chunks: int = 0
    """Of the text, `chunk_size` tokens each."""
    chunk_size: int = 512
    datasets: tuple[str, ...] = field(default=())
    """What the text was, for the reader of a file."""

    def mean(self, name: str) -> torch.Tensor:
        """The mean squares [in] or [experts, in] in float64; ones for experts that no row came to."""
        sums, counts = self.values[name].double(), self.counts[name].double()
        rows = sums.view(len(counts), -1)
        means = torch.where(counts[:, None] > 0, rows / counts[:, None].clamp(min=1), 1.0)
        return means.view(sums.shape)

    def of(self, name: str, shape: tuple[int, ...]) -> torch.Tensor | None:
        """The means for a weight [out, in] or [experts, out, in], as `making.pack.pack` takes them; None if unknown.

        A weight without statistics gets those of one with the same input.  Files that do not say how many experts
        a stack has give its numbers as one row, which is cut here.  Raises OptionError for another width.
        """
        found = self._known(name)
        if found is None:
            return None
        means = self.mean(found)
        width, numbers = shape[-1], means.numel()
        if numbers == width:
            return means.view(width)
        if len(shape) == 3 and numbers == shape[0] * width:
            return means.view(shape[0], width)
        raise OptionError(
            f"The importance of {name} is of {numbers} columns, and the weight is {list(shape)}.",
            fix="use an importance matrix that was made with this model",
        )

    def _known(self, name: str) -> str | None:
        if name in self.values:
            return name
        front, projection, end = _split(name)
        for twins in TWINS:
            for twin in twins if projection in twins else ():
                if (other := f"{front}{twin}{end}") in self.values:
                    return other
        return None


def same_input(name: str) -> str:
    """The name that stands for all weights of a layer that are multiplied with what this one is."""
    front, projection, end = _split(name)
    first = next((twins[0] for twins in TWINS if projection in twins), projection)
    return f"{front}{first}{end}"


def _split(name: str) -> tuple[str, str, str]:
    """What stands before and behind the projection: "model.layers.0.mlp.", "up_proj", ".weight"."""
    base = name.removesuffix(".weight")
    front, dot, projection = base.rpartition(".")
    return front + dot, projection, name[len(base) :]
