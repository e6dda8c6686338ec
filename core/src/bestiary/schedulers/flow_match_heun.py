"""Heun's method along the flow: two evaluations a step, the last step one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bestiary.errors import OptionError
from bestiary.schedulers.flow_match import FlowMatch
from bestiary.schedulers.scheduler import Array, Schedule


@dataclass(frozen=True, kw_only=True)
class FlowMatchHeun(FlowMatch):
    """diffusers' FlowMatchHeunDiscreteScheduler, which knows only the fixed shift of the keys that are taken here.

    `memory` is the sample and the output at the begin of a step, between its two evaluations.
    """

    @property
    def needs_noise(self) -> bool:
        return False

    def schedule(
        self, steps: int | None = None, *, sigmas: Any = None, timesteps: Any = None, mu: float | None = None
    ) -> Schedule:
        told, values, last = self.plan(steps, sigmas, timesteps, mu)
        twice = np.repeat(np.arange(len(values)), 2)[1:]  # each but the first is where one step ends and one begins
        return Schedule(told[twice], np.append(values[twice], last), evaluations=2)

    def step(
        self,
        output: Array,
        sample: Array,
        schedule: Schedule,
        index: int,
        memory: tuple[Array, Array] | None = None,
        noise: Array | None = None,
    ) -> tuple[Array, tuple[Array, Array] | None]:
        if index % 2 == 0:
            now, after = schedule.sigma(index)
            ends = index == len(schedule) - 1
            return sample + (after - now) * output, None if ends else (sample, output)
        if memory is None:
            raise OptionError("A step of Heun's method begins at an even index.", fix="begin at schedule.start(...)")
        before, now = schedule.sigma(index - 1)
        begin, slope = memory
        return begin + (now - before) * 0.5 * (slope + output), None
