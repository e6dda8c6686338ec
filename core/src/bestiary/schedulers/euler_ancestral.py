"""Euler's method with new noise in each step, as k-diffusion has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestiary.schedulers.euler import noise_scale, slope_of
from bestiary.schedulers.keys import check_keys
from bestiary.schedulers.noising import BySigma
from bestiary.schedulers.prediction import required
from bestiary.schedulers.request import request
from bestiary.schedulers.scheduler import Array, Schedule
from bestiary.schedulers.spacing import spaced


@dataclass(frozen=True, kw_only=True)
class EulerAncestral(BySigma):
    """diffusers' EulerAncestralDiscreteScheduler: a sample is picture + sigma * noise."""

    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    steps_offset: int = 0

    def __post_init__(self) -> None:
        check_keys(self)
        self.check_betas()

    @property
    def needs_noise(self) -> bool:
        return True

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset()

    def schedule(
        self, steps: int | None = None, *, sigmas: Any = None, timesteps: Any = None, mu: float | None = None
    ) -> Schedule:
        train = self.num_train_timesteps
        asked = request(self, steps, sigmas, timesteps, mu, most=train, highest=math.inf)
        told = spaced(self.timestep_spacing, asked.steps, train, self.steps_offset)
        values = np.append(self.sigmas_at(told), 0.0)
        return Schedule(told, values, noise_scale(self.timestep_spacing, float(values.max())))

    def step(
        self,
        output: Array,
        sample: Array,
        schedule: Schedule,
        index: int,
        memory: None = None,
        noise: Array | None = None,
    ) -> tuple[Array, None]:
        now, after = schedule.sigma(index)
        # Down to where new noise brings the sample up to the sigma after the step.
        added = math.sqrt(after**2 * (now**2 - after**2) / now**2)
        down = math.sqrt(after**2 - added**2)
        slope = slope_of(self.prediction_type, output, sample, now)
        return sample + (down - now) * slope + added * required(noise), None
