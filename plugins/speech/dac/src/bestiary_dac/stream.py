"""Sound that is decoded while its codes are still being made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bestiary.errors import RequestError
from bestiary_dac.flow import Flow

if TYPE_CHECKING:
    from bestiary_dac.model import Dac


class DecodeStream:
    """Takes codes as they come, and gives the samples that no later code changes; nothing is computed twice.

    It holds the decoder's weights in the order in which they are computed with, for as long as it lives.
    """

    def __init__(self, model: Dac) -> None:
        self._model = model
        self._flows: list[Flow] = []
        self._shape: tuple[int, ...] = ()
        self._ended = False

    def push(self, codes: torch.Tensor) -> torch.Tensor:
        """The next frames [B, Q, T] int64 -> the next samples [B, 1, N] float32; N may be none at the beginning.

        Raises RequestError for what are no codes of the model, for another number of sounds or codebooks than before,
        and after the end.
        """
        self._check_open()
        self._model.quantizer.check(codes)
        if self._shape and self._shape != codes.shape[:2]:
            before, came = (list(shape[:2]) for shape in (self._shape, codes.shape))
            raise RequestError(f"Codes of {came} sounds and codebooks came after some of {before}.")
        self._shape = tuple(codes.shape[:2])
        with torch.no_grad():
            return self._decoded(self._model.quantizer.decode(codes, self._model.dtype), last=False)

    def finish(self) -> torch.Tensor:
        """The samples [B, 1, N] that waited for more, with silence after the last frame.  Raises RequestError."""
        self._check_open()
        if not self._shape:
            raise RequestError("A sound ended before any codes came.")
        self._ended = True
        weight = self._model.decoder.conv1.weight
        empty = torch.empty((self._shape[0], 0, weight.shape[1]), dtype=self._model.dtype, device=weight.device)
        with torch.no_grad():
            made = self._decoded(empty, last=True)
        self._flows.clear()
        return made

    def _decoded(self, frames: torch.Tensor, last: bool) -> torch.Tensor:
        """The next frames [B, T, H] -> samples [B, 1, N]."""
        model = self._model
        sounds = model.together(frames)
        weights = self._flows[0].weights if self._flows else {}
        self._flows = self._flows or [Flow(weights) for _ in sounds]
        made = [
            torch.cat(list(model.through(model.decoder, sound, flow, 1, last)), 1)
            for sound, flow in zip(sounds, self._flows, strict=True)
        ]
        return torch.cat(made).transpose(1, 2).float()

    def _check_open(self) -> None:
        if self._ended:
            raise RequestError("The stream has ended.", fix="take a new one for another sound")
