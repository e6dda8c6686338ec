"""UniPC: a predictor and a corrector from the same evaluations (Zhao et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bestiary.errors import ConfigError
from bestiary.schedulers.keys import number, one_of
from bestiary.schedulers.multistep import Multistep, remembered
from bestiary.schedulers.request import Request, request
from bestiary.schedulers.scheduler import Array, Numbers, Schedule
from bestiary.schedulers.shift import factor_of, shifted, stretched
from bestiary.schedulers.spacing import spaced
from bestiary.schedulers.spread import spread, timesteps_of
from bestiary.schedulers.unipc_step import advance

_BELOW_ONE = 1e-6
"""Of flow sigmas the first is kept so far below 1, where lambda is finite."""


class History(NamedTuple):
    """What a step leaves to the next: the predicted pictures, the corrected sample, and the order of the predictor."""

    pictures: tuple[Array, ...]
    sample: Array
    order: int


@dataclass(frozen=True, kw_only=True)
class UniPC(Multistep):
    """diffusers' UniPCMultistepScheduler, on predictions of the picture (`predict_x0`)."""

    solver_type: str = "bh2"
    disable_corrector: tuple[int, ...] = ()
    """Indices of steps after which the corrector is not used."""
    sigma_min: float | None = None
    sigma_max: float | None = None
    shift_terminal: float | None = None

    def __post_init__(self) -> None:
        self.check({"solver_type": one_of("bh1", "bh2"), "shift_terminal": number(0.0, 1.0 - 1e-6, optional=True)})
        object.__setattr__(self, "disable_corrector", tuple(self.disable_corrector))
        if self.shift_terminal is not None and not self.use_flow_sigmas:
            raise ConfigError('"shift_terminal" is set without flow sigmas.', fix="set use_flow_sigmas")
        if self.use_flow_sigmas and (self.use_exponential_sigmas or self.use_beta_sigmas):
            raise ConfigError('"use_flow_sigmas" goes with use_karras_sigmas only.', fix="leave one of them")

    @property
    def needs_noise(self) -> bool:
        return False

    @property
    def accepts(self) -> frozenset[str]:
        if not self.use_flow_sigmas or self.use_karras_sigmas:
            return frozenset()
        return frozenset(("sigmas", "mu") if self.use_dynamic_shifting else ("sigmas",))

    def schedule(
        self, steps: int | None = None, *, sigmas: Any = None, timesteps: Any = None, mu: float | None = None
    ) -> Schedule:
        train = self.num_train_timesteps
        asked = request(self, steps, sigmas, timesteps, mu, most=train, highest=1.0)
        table = self.sigma_table
        values = spread(self, float(table[-1]), float(table[0]), asked.steps)
        if values is not None:
            if self.use_flow_sigmas:
                values = values / (values + 1)
                told = values * train
            else:
                told = timesteps_of(values, table)
                told = told.round() if self.use_karras_sigmas else told
        elif self.use_flow_sigmas:
            values = self._flow(asked)
            told = values * train
        else:
            told = spaced(self.timestep_spacing, asked.steps, train, self.steps_offset, more=1).round()
            values = self.sigmas_at(told)
            return Schedule(told, np.append(values, self.last_sigma(self.final_sigmas_type)))
        return Schedule(np.trunc(told), np.append(values, 0.0 if self.final_sigmas_type == "zero" else values[-1]))

    def _flow(self, asked: Request) -> Numbers:
        values = asked.sigmas
        if values is None:
            values = np.linspace(1, 1 / self.num_train_timesteps, asked.steps + 1)[:-1]
        factor = self.flow_shift if asked.mu is None else factor_of(asked.mu, self.time_shift_type)
        values = stretched(shifted(values, factor), self.shift_terminal)
        if abs(values[0] - 1) < _BELOW_ONE:
            values[0] -= _BELOW_ONE
        return values

    def step(
        self,
        output: Array,
        sample: Array,
        schedule: Schedule,
        index: int,
        memory: History | None = None,
        noise: Array | None = None,
    ) -> tuple[Array, History]:
        now, _ = schedule.sigma(index)
        clean = self.clean(output, sample, now)
        pictures: tuple[Array, ...] = ()
        if memory is not None:
            pictures = memory.pictures
            if index > 0 and index - 1 not in self.disable_corrector:
                sample = advance(
                    self, self.solver_type, schedule, index - 1, memory.order, pictures, memory.sample, sample, clean
                )
        pictures = remembered(pictures, clean, self.solver_order)
        order = min(self.solver_order, len(pictures))
        if self.lower_order_final:
            order = min(order, len(schedule) - index)
        order = self.usable_order(order, schedule, index)
        made = advance(self, self.solver_type, schedule, index, order, pictures, sample, sample, None)
        return made, History(pictures, sample, order)
