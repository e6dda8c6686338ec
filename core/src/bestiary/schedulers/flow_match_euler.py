"""Euler's method along the flow: what FLUX and Stable Diffusion 3 are sampled with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bestiary.schedulers.flow_match import FlowMatch
from bestiary.schedulers.prediction import required
from bestiary.schedulers.scheduler import Array, Schedule


@dataclass(frozen=True, kw_only=True)
class FlowMatchEuler(FlowMatch):
    """diffusers' FlowMatchEulerDiscreteScheduler."""

    stochastic_sampling: bool = False
    """Go all the way to the picture in each step, and back with new noise."""

    @property
    def needs_noise(self) -> bool:
        return self.stochastic_sampling

    def schedule(
        self, steps: int | None = None, *, sigmas: Any = None, timesteps: Any = None, mu: float | None = None
    ) -> Schedule:
        told, values, last = self.plan(steps, sigmas, timesteps, mu)
        return Schedule(told, np.append(values, last))

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
        if self.stochastic_sampling:
            return (1 - after) * (sample - now * output) + after * required(noise), None
        return sample + (after - now) * output, None
