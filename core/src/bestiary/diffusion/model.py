"""What a family's plugin brings to the image pipeline: `model` of its record names a function that builds it.

    build(whole: Identified, parts: Networks) -> ImageModel

It takes the networks from `parts` when it uses them, and only then: they may leave the memory in between.  The part
"vae" is an autoencoder, which the pipeline itself calls: encode(pixels, noise), decode(latents), both in the scale of
the denoiser and with a `tile` of latents, a multiple of 4, on request, and `factor`, the pixels of a latent's side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from bestiary.schedulers.scheduler import Scheduler

Denoise = Callable[[torch.Tensor, float], torch.Tensor]
"""(latents [1, C, H, W], timestep of the schedule) -> what the scheduler's step takes, of the same shape."""


class Encode(Protocol):
    """The autoencoder, as a family sees it."""

    def __call__(self, picture: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Latents [1, C, h, w], in float32 and in the scale of the denoiser, of pixels [1, 3, H, W] in -1..1.

        A sample of what they may be by `noise` of their shape, or without it the most probable.
        """


@dataclass(frozen=True)
class ImageTerms:
    """What a model takes, and what it does where nothing is said."""

    multiple: int
    """Of which height and width are multiples."""
    height: int = 1024
    width: int = 1024
    steps: int = 28
    guidance: float = 3.5
    guided: bool = True
    """Whether the network is told `guidance`; else it means nothing."""
    true_cfg: float = 1.0
    """Classifier-free guidance that the model is best with; 1 is none."""
    max_sequence_length: int = 512
    """Tokens of a prompt, and the most that may be asked for."""
    needs: frozenset[str] = frozenset()
    """Of "image", "mask", "reference" and "control", pictures without which this model does not work."""
    takes: frozenset[str] = frozenset(("image", "mask"))
    """Pictures that it takes."""


@dataclass(frozen=True)
class Condition:
    """What the denoiser is told of one prompt, [1, ...] each; made once and used in every step."""

    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Pictures:
    """The pictures of a request in the size of the result, [1, 3, H, W] in -1..1; a mask [1, 1, H, W] is 0 or 1."""

    image: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    """1 where something new is to be."""
    reference: torch.Tensor | None = None
    """A picture to go by, which may have another size."""
    control: torch.Tensor | None = None
    """Depth, edges or the like, of the result."""


class ImageModel(Protocol):
    """A family's networks, put together."""

    @property
    def terms(self) -> ImageTerms: ...

    @property
    def scheduler(self) -> Mapping[str, Any]:
        """What scheduler_config.json says, or what the family takes for granted."""

    def condition(self, prompt: str, prompt_2: str | None, length: int) -> Condition:
        """A prompt through the text encoders, `length` tokens of it; `prompt_2` is for the second where they differ."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """[C, H, W] of the latents of a picture."""

    def shift(self, scheduler: Scheduler, height: int, width: int) -> float | None:
        """The `mu` of a schedule that goes by the size of the picture; None where it does not."""

    def sigmas(self, scheduler: Scheduler, steps: int) -> Any:
        """The sigmas from which the schedule is made, where the family has its own; None: the scheduler's."""

    def context(self, pictures: Pictures, encode: Encode, height: int, width: int) -> Mapping[str, torch.Tensor]:
        """What the denoiser is told besides the prompt, in every step: latents of a reference, a mask."""

    def denoiser(
        self,
        condition: Condition,
        context: Mapping[str, torch.Tensor],
        height: int,
        width: int,
        guidance: float | None,
    ) -> AbstractContextManager[Denoise]:
        """The denoiser for one picture, while its network is here; what does not change with the steps is done once."""
