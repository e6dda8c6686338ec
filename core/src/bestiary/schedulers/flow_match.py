"""The keys and the schedule of flow matching (Lipman et al. 2023, Esser et al. 2024), which its solvers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bestiary.schedulers.keys import check_keys
from bestiary.schedulers.request import request
from bestiary.schedulers.scheduler import Array, Numbers, Schedule
from bestiary.schedulers.shift import factor_of, shifted, stretched
from bestiary.schedulers.spread import spread

MOST_STEPS = 1000
"""Flow is continuous in time: a model with few timesteps may still take many steps."""


@dataclass(frozen=True, kw_only=True)
class FlowMatch:
    """A sample is (1 - sigma) * picture + sigma * noise, and the model predicts noise less picture."""

    num_train_timesteps: int = 1000
    """Only the unit of timesteps: sigma 1 is this one."""
    shift: float = 1.0
    use_dynamic_shifting: bool = False
    """Shift by `mu` in place of `shift`."""
    time_shift_type: str = "exponential"
    base_shift: float | None = 0.5
    max_shift: float | None = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    shift_terminal: float | None = None
    invert_sigmas: bool = False
    """Count from the picture to the noise, as models do that were trained with time the other way."""
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False

    def __post_init__(self) -> None:
        check_keys(self)

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset(("sigmas", "timesteps", "mu") if self.use_dynamic_shifting else ("sigmas", "timesteps"))

    def plan(self, steps: int | None, sigmas: Any, timesteps: Any, mu: float | None) -> tuple[Numbers, Numbers, float]:
        """Timesteps [N], sigmas [N] and the sigma after the last step.

        Own sigmas, and those that follow from own timesteps, are shifted like all others; own timesteps are told to
        the model as they are.
        """
        most = max(self.num_train_timesteps, MOST_STEPS)
        asked = request(self, steps, sigmas, timesteps, mu, most=most, highest=1.0)
        factor = self.shift if asked.mu is None else factor_of(asked.mu, self.time_shift_type)
        if asked.sigmas is not None:
            values = asked.sigmas
        elif asked.timesteps is not None:
            values = asked.timesteps / self.num_train_timesteps
        else:
            lowest = 1 / self.num_train_timesteps
            # A fixed shift moves the lowest sigma of the training too, and is applied once more below.
            values = np.linspace(1.0, lowest if asked.mu is not None else shifted(lowest, self.shift), asked.steps)
        values = stretched(shifted(values, factor), self.shift_terminal)
        others = spread(self, float(values[0]), float(values[-1]), asked.steps)
        values = values if others is None else others
        told = asked.timesteps
        if self.invert_sigmas:
            values, told = 1 - values, None
        return values * self.num_train_timesteps if told is None else told, values, float(self.invert_sigmas)

    def scale_input(self, sample: Array, schedule: Schedule, index: int) -> Array:
        return sample

    def add_noise(self, sample: Array, noise: Array, schedule: Schedule, index: int) -> Array:
        sigma, _ = schedule.sigma(index)
        return sigma * noise + (1 - sigma) * sample
