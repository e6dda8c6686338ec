"""What a family's plugin brings to the speech pipeline: `model` of its record names a function that builds it.

    build(whole: Identified, parts: Networks) -> SpeechModel

`parts` has the networks of the pipeline, which come into memory once this has looked at their configurations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from bestiary.records import Progress

if TYPE_CHECKING:
    from bestiary.speech.request import SpeechRequest

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class SpeechTerms:
    """What a model makes, and what it does where nothing is said."""

    rate: int
    """Samples a second."""
    frame_rate: float
    """Frames, one for each token of `max_tokens`, in a second of sound."""
    max_tokens: int
    """Frames of one answer at most, where there is no voice to go on with."""
    temperature: float = 1.0
    top_p: float = 1.0
    guidance: float = 1.0
    """Above 1 each step is computed a second time without the text, and the difference counts so many times."""
    cfg_filter_top_k: int | None = None
    """With guidance: how many codes it leaves to choose from."""


@dataclass(frozen=True)
class Piece:
    """The next samples of one of the texts."""

    text: int
    """Which."""
    samples: torch.Tensor
    """[N] in float32, on the CPU; N may be 0."""
    codes: torch.Tensor | None
    """Of models with a codec: those frames of it [Q, T] int64 that are new."""
    last: bool
    finished: bool = False
    """Of the last one: whether the model came to an end by itself."""


class SpeechModel(Protocol):
    """A family's networks, put together."""

    @property
    def terms(self) -> SpeechTerms: ...

    def check(self, request: SpeechRequest) -> None:
        """Raises RequestError for what it cannot say, before anything is computed."""

    def speak(self, request: SpeechRequest, frames: int | None, report: Report | None) -> Iterator[Piece]:
        """The sounds of all texts: `frames` of them at a time as soon as they are there, or None for each at once.

        What pieces hold does not depend on `frames`, and what a text sounds like not on those beside it.
        """
