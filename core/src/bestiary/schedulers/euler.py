"""Euler's method for models trained on betas, as Karras et al. 2022 write it, without their churn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestiary.schedulers.keys import check_keys, one_of, spreads_of
from bestiary.schedulers.noising import BySigma
from bestiary.schedulers.prediction import picture
from bestiary.schedulers.request import request
from bestiary.schedulers.scheduler import Array, Schedule
from bestiary.schedulers.spacing import spaced
from bestiary.schedulers.spread import exponential, spread, timesteps_of


@dataclass(frozen=True, kw_only=True)
class Euler(BySigma):
    """diffusers' EulerDiscreteScheduler: a sample is picture + sigma * noise."""

    prediction_type: str = "epsilon"
    interpolation_type: str = "linear"
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    timestep_spacing: str = "linspace"
    timestep_type: str = "discrete"
    steps_offset: int = 0
    final_sigmas_type: str = "zero"

    def __post_init__(self) -> None:
        check_keys(self, {"prediction_type": one_of("epsilon", "v_prediction", "sample", "original_sample")})
        self.check_betas()

    @property
    def needs_noise(self) -> bool:
        return False

    @property
    def accepts(self) -> frozenset[str]:
        """Own sigmas state the one after the last step too."""
        return frozenset(("sigmas",) if spreads_of(self) or self._continuous else ("sigmas", "timesteps"))

    @property
    def _continuous(self) -> bool:
        return self.timestep_type == "continuous" and self.prediction_type == "v_prediction"

    def schedule(
        self, steps: int | None = None, *, sigmas: Any = None, timesteps: Any = None, mu: float | None = None
    ) -> Schedule:
        train = self.num_train_timesteps
        asked = request(self, steps, sigmas, timesteps, mu, most=train, highest=math.inf, tail=1)
        if asked.sigmas is not None:
            values, told = asked.sigmas, timesteps_of(asked.sigmas[:-1], self.sigma_table)
        else:
            if asked.timesteps is not None:
                told = asked.timesteps
            else:
                told = spaced(self.timestep_spacing, asked.steps, train, self.steps_offset)
            values = self.sigmas_at(told)
            if self.interpolation_type == "log_linear":
                values = exponential(self.sigma_table[-1], self.sigma_table[0], asked.steps + 1)
            others = spread(self, float(values[0]), float(values[-1]), asked.steps)
            if others is not None:
                values, told = others, timesteps_of(others, self.sigma_table)
            # Sigmas that are even in the logarithm are one more already, and end at the lowest of the table.
            values = np.append(values, self.last_sigma(self.final_sigmas_type))[: asked.steps + 1]
        if self._continuous:
            told = 0.25 * np.log(values[:-1])
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
        slope = slope_of(self.prediction_type, output, sample, now)
        return sample + (after - now) * slope, None


def noise_scale(timestep_spacing: str, highest: float) -> float:
    """The deviation of a first sample; "leading" timesteps do not begin at the end of the training's."""
    return math.sqrt(highest**2 + 1) if timestep_spacing == "leading" else highest


def slope_of(prediction_type: str, output: Array, sample: Array, sigma: float) -> Array:
    """The derivative of the sample by sigma."""
    if prediction_type == "epsilon":
        return output
    alpha = 1 / math.sqrt(sigma**2 + 1)
    kind = "sample" if prediction_type == "original_sample" else prediction_type
    return (sample - picture(kind, output, sample * alpha, alpha, sigma * alpha)) / sigma
