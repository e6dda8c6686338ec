"""The keys, and the arithmetic of signal and noise, that the multistep solvers share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bestiary.errors import ConfigError
from bestiary.schedulers.betas import Betas
from bestiary.schedulers.clipping import thresholded
from bestiary.schedulers.keys import Check, check_keys, one_of
from bestiary.schedulers.prediction import picture
from bestiary.schedulers.scheduler import Array, Schedule

FEW_STEPS = 15
"""Below so many steps the last ones are of lower orders (`lower_order_final`)."""


@dataclass(frozen=True, kw_only=True)
class Multistep(Betas):
    """A sample is alpha * picture + sigma * noise; `Schedule.sigmas` are sigma / alpha, or sigma of flow models.

    The solvers work in lambda, the logarithm of alpha / sigma, and on predictions of the picture.
    """

    prediction_type: str = "epsilon"
    solver_order: int = 2
    lower_order_final: bool = True
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_flow_sigmas: bool = False
    """Whether the model is of flow matching."""
    flow_shift: float = 1.0
    use_dynamic_shifting: bool = False
    """Shift flow sigmas by `mu` in place of `flow_shift`."""
    time_shift_type: str = "exponential"
    final_sigmas_type: str = "zero"
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0

    def check(self, own: dict[str, Check]) -> None:
        """Raises ConfigError; for `__post_init__`."""
        kinds = one_of("epsilon", "v_prediction", "sample", "flow_prediction")
        check_keys(self, {"prediction_type": kinds, **own})
        self.check_betas()
        if self.prediction_type == "flow_prediction" and not self.use_flow_sigmas:
            raise ConfigError('"prediction_type" is flow_prediction without flow sigmas.', fix="set use_flow_sigmas")
        if self.use_dynamic_shifting and not self.use_flow_sigmas:
            raise ConfigError('"use_dynamic_shifting" is set without flow sigmas.', fix="set use_flow_sigmas")

    def parts(self, sigma: float) -> tuple[float, float]:
        """alpha and sigma of a sample, from a sigma of the schedule."""
        if self.use_flow_sigmas:
            return 1 - sigma, sigma
        alpha = 1 / math.sqrt(sigma**2 + 1)
        return alpha, sigma * alpha

    def log_ratio(self, sigma: float) -> float:
        """lambda; infinite where there is no noise, or nothing else."""
        alpha, noise = self.parts(sigma)
        if noise == 0.0:
            return math.inf
        return math.log(alpha) - math.log(noise) if alpha > 0 else -math.inf

    def clean(self, output: Array, sample: Array, sigma: float) -> Array:
        """The picture that the model predicts."""
        made = picture(self.prediction_type, output, sample, *self.parts(sigma))
        if self.thresholding:
            return thresholded(made, self.dynamic_thresholding_ratio, self.sample_max_value)
        return made

    def usable_order(self, wanted: int, schedule: Schedule, index: int) -> int:
        """`wanted`, or less where the last sigmas before `index` are not distinct, as in schedules of very many steps,
        or where the step ends without noise: there no order above the first is defined."""
        assert schedule.sigmas is not None
        if schedule.sigmas[index + 1] == 0.0:
            return 1
        last = schedule.sigmas[index - wanted + 1 : index + 1].tolist()[::-1]
        for order in range(1, wanted):
            if last[order] == last[order - 1]:
                return order
        return wanted

    def scale_input(self, sample: Array, schedule: Schedule, index: int) -> Array:
        return sample

    def add_noise(self, sample: Array, noise: Array, schedule: Schedule, index: int) -> Array:
        alpha, sigma = self.parts(schedule.sigma(index)[0])
        return alpha * sample + sigma * noise


def remembered(memory: tuple[Any, ...], latest: Any, most: int) -> tuple[Any, ...]:
    """The memory with the latest added, and only the last `most` kept."""
    return (*memory, latest)[-most:] if most else ()
