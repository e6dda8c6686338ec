"""The denoising of one picture, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bestiary.errors import GenerationError

if TYPE_CHECKING:
    from bestiary.diffusion.model import Denoise
    from bestiary.schedulers.scheduler import Schedule, Scheduler


@dataclass(frozen=True)
class Step:
    """What a callback sees after a step."""

    picture: int
    """Which picture of the request, from 0."""
    number: int
    """How many evaluations of the denoiser are done of this picture."""
    of: int
    seconds: float
    """That this one took."""
    latents: torch.Tensor
    """[1, C, h, w], in float32."""
    preview: Callable[[], Any]
    """Makes a PIL image of the latents as they are now; it costs a pass of the autoencoder."""


@dataclass(frozen=True)
class Mask:
    """What stays of a picture while the rest is made anew."""

    new: torch.Tensor
    """[1, 1, h, w]: 1 where something new is to be."""
    clean: torch.Tensor
    """Latents of the picture."""
    noise: torch.Tensor


START, ENCODING, STEPS = range(3)
"""What noise is for: to begin with, for the autoencoder's sample of a picture, for the steps of some schedulers."""


def numbers_of(seed: int, purpose: int) -> torch.Generator:
    """Random numbers on the CPU, so that they are the same on every device; others for each purpose."""
    return torch.Generator().manual_seed(seed ^ (purpose << 61))


def noise_of(seed: int, shape: tuple[int, ...], purpose: int = START) -> torch.Tensor:
    """Standard normal numbers [1, ...] in float32."""
    return torch.randn((1, *shape), generator=numbers_of(seed, purpose))


def guided(denoise: Denoise, negative: Denoise | None, scale: float) -> Denoise:
    """Classifier-free guidance (Ho and Salimans 2022): the way from the negative prompt to the prompt, and beyond."""
    if negative is None:
        return denoise

    def both(latents: torch.Tensor, timestep: float) -> torch.Tensor:
        against = negative(latents, timestep)
        return against + scale * (denoise(latents, timestep) - against)

    return both


def run(
    denoise: Denoise,
    latents: torch.Tensor,
    scheduler: Scheduler,
    schedule: Schedule,
    *,
    start: int = 0,
    mask: Mask | None = None,
    seed: int = 0,
) -> Iterator[tuple[int, float, torch.Tensor]]:
    """(index, seconds, latents) after each evaluation; latents [1, C, h, w] in float32.

    Raises GenerationError where the network gives numbers that are not finite.
    """
    memory: Any = None
    more = numbers_of(seed, STEPS)
    for index in range(start, len(schedule)):
        began = time.perf_counter()
        output = denoise(scheduler.scale_input(latents, schedule, index), schedule.timestep(index)).float()
        noise = None
        if scheduler.needs_noise:
            noise = torch.randn(latents.shape, generator=more).to(latents.device)
        latents, memory = scheduler.step(output, latents, schedule, index, memory, noise)
        if mask is not None:
            kept = mask.clean
            if index + 1 < len(schedule):
                kept = scheduler.add_noise(mask.clean, mask.noise, schedule, index + 1)
            latents = (1 - mask.new) * kept + mask.new * latents
        if not bool(torch.isfinite(latents).all()):
            raise GenerationError(
                f"Step {index + 1} of {len(schedule)} gave numbers that are not finite.",
                fix='load the model with dtype="bfloat16" or "float32"; check the adapters',
            )
        yield index, time.perf_counter() - began, latents
