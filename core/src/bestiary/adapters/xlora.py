"""X-LoRA: LoRA adapters mixed anew for every token (Buehler & Buehler 2024, arXiv 2402.07148).

    pass 1    the model with fixed scalings (`scaling_pass_value`, 0: without adapters) makes hidden states h
    pass 2    s = classifier(h), and every adapted layer  y = W x + weight * sum_n s[t, layer, n] * scaling_n B_n A_n x

Both passes see every token once and keep keys and values of their own, as in mistral.rs, so the scalings of a token
depend on it and on those before it only: a prompt may come in parts, beside others, or from the prefix cache.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.adapters.step import Part
from bestiary.adapters.xlora_classifier import XLoraClassifier
from bestiary.errors import GenerationError
from bestiary.nn import Batch, LanguageModel, LayerSpec


class Scalings(threading.local):
    """The scalings [T, L, N] of the pass that a thread runs; None: no adapter works."""

    rows: torch.Tensor | None = None

    @contextmanager
    def of(self, rows: torch.Tensor | None) -> Iterator[None]:
        before, self.rows = self.rows, rows
        try:
            yield
        finally:
            self.rows = before


class XLoraModel(nn.Module):
    """A `bestiary.nn.LanguageModel` over another one whose layers have mixtures."""

    def __init__(self, base: LanguageModel, classifier: XLoraClassifier, scalings: Scalings) -> None:
        super().__init__()
        self.base, self.classifier, self._scalings = base, classifier, scalings

    @property
    def specs(self) -> tuple[LayerSpec, ...]:
        """Those of the first pass, then those of the second."""
        return (*self.base.specs, *self.base.specs)

    @property
    def vocab_size(self) -> int:
        return self.base.vocab_size

    @property
    def media(self) -> nn.Module | None:
        """The eyes of the model inside."""
        return getattr(self.base, "media", None)

    def hidden(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """tokens [T] -> the states [T, D] of the second pass before the head."""
        half = len(batch.layers) // 2
        with self._scalings.of(self.classifier.first_pass(len(tokens))):
            first = self.base.hidden(tokens, replace(batch, layers=batch.layers[:half]))
        with self._scalings.of(self.classifier(first)):
            return self.base.hidden(tokens, replace(batch, layers=batch.layers[half:]))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.base.head(hidden)

    def forward(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """tokens [T] -> logits [N, V] of the batch's outputs, in the model's type."""
        x = self.hidden(tokens, batch)
        return self.head(x if batch.outputs is None else x[batch.outputs])


@dataclass(frozen=True)
class Share:
    """What one adapter adds to a layer, and which scalings are its own: the number of the adapter, and of the layer."""

    adapter: int
    layer: int
    part: Part


class Mixture:
    """The adapters of one layer, as one pair of matrices: what stands in `Linear.adapter`."""

    def __init__(self, scalings: Scalings, path: str, shares: Sequence[Share], out: int, weight: float) -> None:
        """`out` is how many rows the layer's weight has, `weight` a factor of all."""
        first = shares[0].part.a
        self._scalings, self._path = scalings, path
        self.a = torch.cat([share.part.a for share in shares])
        self.b = first.new_zeros(out, len(self.a))
        columns: list[tuple[int, int, float]] = []
        for share in shares:
            part, before = share.part, len(columns)
            columns += [(share.layer, share.adapter, part.scaling * weight)] * len(part.a)
            self.b[part.start : part.start + len(part.b), before : len(columns)] = part.b
        layers, owners, factors = zip(*columns, strict=True)
        self.layers, self.owners = torch.tensor(layers, device=first.device), torch.tensor(owners, device=first.device)
        self.factors = torch.tensor(factors, device=first.device)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """y [T, out] of x [T, in], which are these `rows` of the step (None: all), with the adapters' part."""
        scalings = self._scalings.rows
        if scalings is None:
            return y
        mine = scalings if rows is None else scalings[rows]
        if len(x) != len(mine):
            raise GenerationError(f"{self._path} sees {len(x)} rows of a step of {len(mine)} rows with X-LoRA.")
        factors = (mine[:, self.layers, self.owners] * self.factors).to(self.a.dtype)
        return y + F.linear(F.linear(x.to(self.a.dtype), self.a) * factors, self.b).to(y.dtype)


class ExpertMixtures:
    """What stands in `Experts.adapter`: mixtures by projection and expert."""

    def __init__(self, mixtures: Mapping[tuple[str, int], Mixture]) -> None:
        self._mixtures = mixtures

    def __call__(self, name: str, expert: int, rows: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mixture = self._mixtures.get((name, expert))
        return y if mixture is None else mixture(x, y, rows)
