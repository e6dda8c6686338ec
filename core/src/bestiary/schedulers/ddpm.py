"""Denoising diffusion probabilistic models (Ho et al. 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bestiary.errors import OptionError
from bestiary.schedulers.clipping import Clipping
from bestiary.schedulers.ddim import whole_timesteps
from bestiary.schedulers.keys import check_keys
from bestiary.schedulers.noising import ByShare
from bestiary.schedulers.prediction import picture, required
from bestiary.schedulers.request import request
from bestiary.schedulers.scheduler import Array, Schedule

_LEAST = 1e-20
"""A variance whose logarithm is taken is at least so much."""


@dataclass(frozen=True, kw_only=True)
class DDPM(Clipping, ByShare):
    """diffusers' DDPMScheduler; of `variance_type` those that released models use."""

    prediction_type: str = "epsilon"
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    variance_type: str = "fixed_small"
    """With "learned_range" the output may have twice the channels of the sample [B, C, ...]: the second half is where
    the variance lies between its bounds, from -1 to 1 (Nichol and Dhariwal 2021, equation 15)."""

    def __post_init__(self) -> None:
        check_keys(self)
        self.check_betas()

    @property
    def needs_noise(self) -> bool:
        return True

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset({"timesteps"})

    def schedule(
        self, steps: int | None = None, *, sigmas: Any = None, timesteps: Any = None, mu: float | None = None
    ) -> Schedule:
        train = self.num_train_timesteps
        asked = request(self, steps, sigmas, timesteps, mu, most=train, highest=math.inf)
        if asked.timesteps is not None:
            return Schedule(asked.whole_timesteps(train))
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
        timestep = schedule.timestep(index)
        after = schedule.timestep(index + 1) if index + 1 < len(schedule) else None
        fraction = None
        if self.variance_type == "learned_range":
            channels = sample.shape[1]
            if output.shape[1] != 2 * channels:
                raise OptionError(
                    f"The model gives {output.shape[1]} channels for {channels}; a learned variance doubles them.",
                    fix='set variance_type="fixed_small"',
                )
            output, fraction = output[:, :channels], (output[:, channels:] + 1) / 2
        alpha, sigma = self.share(timestep)
        alpha_next, sigma_next = (1.0, 0.0) if after is None else self.share(after)
        clean = self.clipped(picture(self.prediction_type, output, sample, alpha, sigma))
        # Equation 7: the mean between the picture and the sample, over all timesteps that the step leaps.
        beta = 1 - (alpha / alpha_next) ** 2
        mean = alpha_next * beta / sigma**2 * clean + alpha / alpha_next * (sigma_next / sigma) ** 2 * sample
        if timestep == 0:
            return mean, None
        small = max((sigma_next / sigma) ** 2 * beta, _LEAST)
        if fraction is not None:
            logarithm = fraction * math.log(beta) + (1 - fraction) * math.log(small)
            return mean + math.e ** (0.5 * logarithm) * required(noise), None
        return mean + math.sqrt(beta if self.variance_type == "fixed_large" else small) * required(noise), None
