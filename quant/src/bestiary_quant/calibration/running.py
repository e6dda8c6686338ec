"""A text on its way through a network: between two layers nothing of it is kept but its hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from bestiary.errors import GenerationError
from bestiary.generation.cache import FlatLayer, LayerCache
from bestiary.nn import CausalLM, Rotation


class Run:
    """The states [T, D] of each chunk before the next layer; each chunk is a sequence of its own."""

    def __init__(self, model: CausalLM, chunks: Sequence[torch.Tensor], device: torch.device) -> None:
        self._decoder, self._chunks, self._device = model.model, chunks, device
        self._rotations: dict[int, tuple[torch.Tensor, dict[str, Rotation]]] = {}
        self.hidden: list[torch.Tensor] = []

    def embed(self) -> None:
        """Begin; the embedding must stand in the network."""
        self.hidden = [self._decoder.embed_tokens(chunk.to(self._device)) for chunk in self._chunks]

    def layer(self, index: int) -> Iterator[torch.Tensor]:
        """What a layer gives of each chunk, in order.  Raises GenerationError for states that are not finite."""
        layer, kind = self._decoder.layers[index], self._decoder.kinds[index]
        for x in self.hidden:
            positions, rotations = self._places(len(x), x.dtype)
            state = FlatLayer([LayerCache()], [len(x)], x.dtype, self._device)
            y = layer(x, rotations.get(kind), positions, state)
            if not bool(y.isfinite().all()):
                raise GenerationError(
                    f"The states after layer {index} are not finite, so that nothing can be calibrated on them.",
                    fix="load the model in another type (dtype), or quantise it in more bits",
                )
            yield y

    def norm(self) -> None:
        """End; the final norm must stand in the network."""
        self.hidden = [self._decoder.norm(x) for x in self.hidden]

    def _places(self, length: int, dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, Rotation]]:
        if length not in self._rotations:
            positions = torch.arange(length, device=self._device)
            lengths = torch.full_like(positions, length)
            turned = {kind: rope(positions, lengths).to(dtype) for kind, rope in self._decoder.ropes.items()}
            self._rotations[length] = positions, turned
        return self._rotations[length]
