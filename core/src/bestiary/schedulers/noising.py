"""The two ways in which samples are noisy: a share of each (DDPM), or noise that is added (Karras et al. 2022)."""

from __future__ import annotations

import math

from bestiary.schedulers.betas import Betas
from bestiary.schedulers.scheduler import Array, Schedule


class ByShare(Betas):
    """A sample is alpha * picture + sigma * noise, whose squares add up to one."""

    def scale_input(self, sample: Array, schedule: Schedule, index: int) -> Array:
        return sample

    def add_noise(self, sample: Array, noise: Array, schedule: Schedule, index: int) -> Array:
        alpha, sigma = self.share(schedule.timestep(index))
        return alpha * sample + sigma * noise


class BySigma(Betas):
    """A sample is picture + sigma * noise; the model is given it with the variance that it was trained on."""

    def scale_input(self, sample: Array, schedule: Schedule, index: int) -> Array:
        return sample / math.sqrt(schedule.sigma(index)[0] ** 2 + 1)

    def add_noise(self, sample: Array, noise: Array, schedule: Schedule, index: int) -> Array:
        return sample + schedule.sigma(index)[0] * noise
