"""Denoising diffusion implicit models (Song et al. 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bestiary.errors import OptionError
from bestiary.schedulers.clipping import Clipping
from bestiary.schedulers.keys import check_keys
from bestiary.schedulers.noising import ByShare
from bestiary.schedulers.prediction import noise_in, picture, required
from bestiary.schedulers.request import request
from bestiary.schedulers.scheduler import Array, Numbers, Schedule
from bestiary.schedulers.spacing import spaced


@dataclass(frozen=True, kw_only=True)
class DDIM(Clipping, ByShare):
    """diffusers' DDIMScheduler; `eta` is an argument of its step."""

    prediction_type: str = "epsilon"
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    """Whether the last step ends at the picture, or at the noise of the first timestep."""
    eta: float = 0.0
    """The share of new noise in each step; 1 is as much as in DDPM."""

    def __post_init__(self) -> None:
        check_keys(self)
        self.check_betas()

    @property
    def needs_noise(self) -> bool:
        return self.eta > 0

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset()

    def schedule(
        self, steps: int | None = None, *, sigmas: Any = None, timesteps: Any = None, mu: float | None = None
    ) -> Schedule:
        train = self.num_train_timesteps
        asked = request(self, steps, sigmas, timesteps, mu, most=train, highest=math.inf)
        return Schedule(whole_timesteps(self.timestep_spacing, asked.steps, train, self.steps_offset))

    def step(
        self,
        output: Array,
        sample: Array,
        schedule: Schedule,
        index: int,
        memory: None = None,
        noise: Array | None = None,
    ) -> tuple[Array, None]:
        timestep = int(schedule.timestep(index))
        before = timestep - self.num_train_timesteps // len(schedule)
        alpha, sigma = self.share(timestep)
        if before >= 0 or not self.set_alpha_to_one:
            alpha_next, sigma_next = self.share(max(before, 0))
        else:
            alpha_next, sigma_next = 1.0, 0.0
        clean = self.clipped(picture(self.prediction_type, output, sample, alpha, sigma))
        found = noise_in(self.prediction_type, output, sample, alpha, sigma)
        # Equation 16: the deviation of the new noise; what is left of the variance is in the direction of the old.
        new = self.eta * sigma_next / sigma * math.sqrt(max(1 - (alpha / alpha_next) ** 2, 0.0))
        made = alpha_next * clean + math.sqrt(max(sigma_next**2 - new**2, 0.0)) * found
        return (made + new * required(noise) if self.eta > 0 else made), None


def whole_timesteps(spacing: str, steps: int, train: int, offset: int) -> Numbers:
    """Whole timesteps [N], each with a beta.  Raises OptionError where the offset leads beyond the last."""
    timesteps = spaced(spacing, steps, train, offset).round()
    if timesteps[0] >= train:
        raise OptionError(
            f"{steps} steps with steps_offset {offset} begin at timestep {int(timesteps[0])}; the last is {train - 1}.",
            fix="ask for fewer steps, or set steps_offset=0",
        )
    return timesteps
