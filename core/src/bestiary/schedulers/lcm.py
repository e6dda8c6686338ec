"""Latent consistency models (Luo et al. 2023): a picture in each step, and back to less noise."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestiary.errors import ConfigError, OptionError
from bestiary.schedulers.clipping import Clipping
from bestiary.schedulers.keys import check_keys
from bestiary.schedulers.noising import ByShare
from bestiary.schedulers.prediction import picture, required
from bestiary.schedulers.request import request
from bestiary.schedulers.scheduler import Array, Schedule

log = logging.getLogger("bestiary.schedulers")
_DEVIATION = 0.5
"""Of the pictures of the training (`sigma_data`)."""


@dataclass(frozen=True, kw_only=True)
class LCM(Clipping, ByShare):
    """diffusers' LCMScheduler."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    clip_sample: bool = False
    prediction_type: str = "epsilon"
    original_inference_steps: int = 50
    """Steps of the model that this one was distilled from; its timesteps are taken from theirs."""
    timestep_scaling: float = 10.0

    def __post_init__(self) -> None:
        check_keys(self)
        self.check_betas()
        if self.original_inference_steps > self.num_train_timesteps:
            raise ConfigError(
                f'"original_inference_steps" is {self.original_inference_steps}, more than all timesteps.'
            )

    @property
    def needs_noise(self) -> bool:
        return True

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset({"timesteps"})

    def schedule(
        self, steps: int | None = None, *, sigmas: Any = None, timesteps: Any = None, mu: float | None = None
    ) -> Schedule:
        train, original = self.num_train_timesteps, self.original_inference_steps
        asked = request(self, steps, sigmas, timesteps, mu, most=train, highest=math.inf)
        trained = np.arange(original, 0, -1) * (train // original) - 1
        if asked.timesteps is not None:
            own = asked.whole_timesteps(train)
            if not np.isin(own, trained).all():
                log.warning("some of the timesteps are not of those that the model was distilled on")
            return Schedule(own)
        if asked.steps > original:
            raise OptionError(
                f"{asked.steps} steps are asked for; this model was distilled from {original}.",
                fix=f"ask for {original} steps at most; 4 to 8 are usual",
            )
        return Schedule(trained[np.floor(np.linspace(0, original, asked.steps, endpoint=False)).astype(int)])

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
        alpha, sigma = self.share(timestep)
        clean = self.clipped(picture(self.prediction_type, output, sample, alpha, sigma))
        # The boundary condition of consistency: at timestep 0 the sample is the picture.
        scaled = timestep * self.timestep_scaling
        keep = _DEVIATION**2 / (scaled**2 + _DEVIATION**2)
        take = scaled / math.sqrt(scaled**2 + _DEVIATION**2)
        denoised = take * clean + keep * sample
        if index == len(schedule) - 1:
            return denoised, None
        alpha_next, sigma_next = self.share(schedule.timestep(index + 1))
        return alpha_next * denoised + sigma_next * required(noise), None
