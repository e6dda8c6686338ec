"""DPM-Solver++ with several steps in memory, as an ODE or an SDE (Lu et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestiary.errors import ConfigError
from bestiary.schedulers.keys import one_of, spreads_of
from bestiary.schedulers.multistep import FEW_STEPS, Multistep, remembered
from bestiary.schedulers.prediction import required
from bestiary.schedulers.request import Request, request
from bestiary.schedulers.scheduler import Array, Numbers, Schedule
from bestiary.schedulers.shift import factor_of, shifted
from bestiary.schedulers.spacing import spaced
from bestiary.schedulers.spread import spread, timesteps_of


@dataclass(frozen=True, kw_only=True)
class DPMSolver(Multistep):
    """diffusers' DPMSolverMultistepScheduler; `memory` is the pictures that were predicted in the steps before.

    The third order of the SDE is that of k-diffusion; diffusers 0.42 has a sign in it the other way.
    """

    algorithm_type: str = "dpmsolver++"
    solver_type: str = "midpoint"
    euler_at_final: bool = False
    use_lu_lambdas: bool = False
    lambda_min_clipped: float = -math.inf
    """Timesteps with a lower lambda are left away: the cosine schedule ends in noise alone."""

    def __post_init__(self) -> None:
        self.check({"solver_type": one_of("midpoint", "heun"), "time_shift_type": one_of("exponential")})
        if self.use_flow_sigmas and spreads_of(self):
            raise ConfigError(f'"use_flow_sigmas" is set beside {spreads_of(self)[0]}.', fix="leave one of them")

    @property
    def needs_noise(self) -> bool:
        return self.algorithm_type.startswith("sde")

    @property
    def accepts(self) -> frozenset[str]:
        if self.use_flow_sigmas:
            return frozenset({"mu"} if self.use_dynamic_shifting else ())
        return frozenset(() if spreads_of(self) else ("timesteps",))

    def schedule(
        self, steps: int | None = None, *, sigmas: Any = None, timesteps: Any = None, mu: float | None = None
    ) -> Schedule:
        asked = request(self, steps, sigmas, timesteps, mu, most=self.num_train_timesteps, highest=math.inf)
        if self.use_flow_sigmas:
            factor = self.flow_shift if asked.mu is None else factor_of(asked.mu, self.time_shift_type)
            values = 1 - np.linspace(1, 1 / self.num_train_timesteps, asked.steps + 1)
            values = shifted(values, factor)[::-1][:-1]
            told = values * self.num_train_timesteps
        else:
            told, values = self._along_the_table(asked)
        return Schedule(np.trunc(told), np.append(values, self.last_sigma(self.final_sigmas_type)))

    def _along_the_table(self, asked: Request) -> tuple[Numbers, Numbers]:
        table = self.sigma_table
        values = spread(self, float(table[-1]), float(table[0]), asked.steps)
        if values is not None:
            told = timesteps_of(values, table)
            whole = self.beta_schedule != "squaredcos_cap_v2" and (self.use_karras_sigmas or self.use_lu_lambdas)
            return told.round() if whole else told, values
        if asked.timesteps is not None:
            told = np.trunc(asked.timesteps)
        else:
            last = self.num_train_timesteps
            if self.lambda_min_clipped > -math.inf:
                last -= int((np.log(1 / table[::-1]) < self.lambda_min_clipped).sum())
            train = self.num_train_timesteps
            told = spaced(self.timestep_spacing, asked.steps, train, self.steps_offset, last=last, more=1).round()
        return told, self.sigmas_at(told)

    def step(
        self,
        output: Array,
        sample: Array,
        schedule: Schedule,
        index: int,
        memory: tuple[Array, ...] | None = None,
        noise: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...]]:
        now, after = schedule.sigma(index)
        clean, before = self.clean(output, sample, now), memory or ()
        kept = remembered(before, clean, self.solver_order - 1)
        if now == after:
            return sample, kept
        left = len(schedule) - index
        few = self.lower_order_final and len(schedule) < FEW_STEPS
        highest = 1 if left == 1 and (few or self.euler_at_final) else 2 if left == 2 and few else self.solver_order
        order = self.usable_order(min(highest, len(before) + 1), schedule, index)

        (_, noise_now), (alpha, noise_after) = self.parts(now), self.parts(after)
        here = self.log_ratio(now)
        h = self.log_ratio(after) - here
        # The SDE goes twice as far and is brought back by its noise.
        way = 2 * h if self.needs_noise else h
        fall = math.exp(-way)
        decay = noise_after / noise_now * (math.exp(-h) if self.needs_noise else 1.0)
        made = decay * sample + alpha * (1 - fall) * clean
        if order > 1:
            assert schedule.sigmas is not None
            first = here - self.log_ratio(float(schedule.sigmas[index - 1]))
            slope = h / first * (clean - before[-1])
            steep = alpha * (1 - (1 - fall) / way)
            if order > 2:
                second = here - first - self.log_ratio(float(schedule.sigmas[index - 2]))
                bend = (slope - h / second * (before[-1] - before[-2])) * (h / (first + second))
                slope = slope + first / h * bend
                made = made + alpha * ((1 - fall - way) / way**2 + 0.5) * bend
            elif self.solver_type == "midpoint":
                steep = 0.5 * alpha * (1 - fall)
            made = made + steep * slope
        if self.needs_noise:
            made = made + noise_after * math.sqrt(1 - math.exp(-2 * h)) * required(noise)
        return made, kept
