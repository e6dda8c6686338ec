"""What a scheduler is: a frozen record of settings, a pure function to a schedule, and a pure step.

    schedule = scheduler.schedule(steps)
    sample, memory = noise * schedule.noise_scale, None
    for index, timestep in enumerate(schedule.timesteps):
        output = model(scheduler.scale_input(sample, schedule, index), timestep)
        sample, memory = scheduler.step(output, sample, schedule, index, memory)

Samples are numpy arrays or torch tensors of any shape: a step is arithmetic with Python floats, which keeps their type
and their device.  It also computes in their type, so samples are best kept in float32 where the model is in less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bestiary.errors import OptionError, shown

Array = Any
"""A numpy array or a torch tensor; a step gives back what it got."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Schedule:
    """The evaluations of a model, in their order.  All numbers are ones that float32 has, as diffusers keeps them."""

    timesteps: Numbers
    """[N]: what the model is told at each evaluation."""
    sigmas: Numbers | None = None
    """[N + 1]: the noise before each evaluation, and after the last; None where the timesteps say all."""
    noise_scale: float = 1.0
    """The deviation of the noise to begin with (`init_noise_sigma`)."""
    evaluations: int = 1
    """Evaluations in one step: 2 for Heun's method, whose last step needs but one."""

    def __post_init__(self) -> None:
        for name in ("timesteps", "sigmas"):
            values = getattr(self, name)
            if values is not None:
                rounded = np.asarray(values).astype(np.float32).astype(np.float64)
                rounded.setflags(write=False)
                object.__setattr__(self, name, rounded)

    def __len__(self) -> int:
        return len(self.timesteps)

    def timestep(self, index: int) -> float:
        """The timestep of an evaluation.  Raises OptionError for an index that has none."""
        return float(self.timesteps[self._checked(index)])

    def sigma(self, index: int) -> tuple[float, float]:
        """The noise before an evaluation and after it, of a schedule that has sigmas."""
        assert self.sigmas is not None
        self._checked(index)
        return float(self.sigmas[index]), float(self.sigmas[index + 1])

    def start(self, strength: float) -> int:
        """The index at which a picture is taken up that is to change by `strength`, above 0 and at most 1.

        Raises OptionError.  A part of a step counts as one, as in diffusers' pipelines of flow models.
        """
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0.0 < strength <= 1.0:
            raise OptionError(f"strength is {shown(strength)}; a number above 0 and at most 1 is due.")
        steps = (len(self) + self.evaluations - 1) // self.evaluations
        # Strictly below the number of steps: a very small strength is rounded away.
        return min(int(steps - steps * strength), steps - 1) * self.evaluations

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise OptionError(f"The schedule has {len(self)} evaluations; there is none with the index {index}.")
        return index


class Scheduler(Protocol):
    """Settings of one method.  Implementations are frozen dataclasses whose fields are diffusers' config keys."""

    @property
    def accepts(self) -> frozenset[str]:
        """Which of "sigmas", "timesteps" and "mu" `schedule` takes with these settings."""

    @property
    def needs_noise(self) -> bool:
        """Whether a step needs noise: standard normal numbers of the sample's shape, new ones in each step."""

    def schedule(
        self,
        steps: int | None = None,
        *,
        sigmas: Any = None,
        timesteps: Any = None,
        mu: float | None = None,
    ) -> Schedule:
        """The schedule of so many steps, or of a user's own sigmas or timesteps.  Raises OptionError.

        `mu` is the shift of a model that shifts by the size of its picture (see `bestiary.schedulers.shift`).
        """

    def scale_input(self, sample: Array, schedule: Schedule, index: int) -> Array:
        """What the model is given in place of the sample."""

    def step(
        self,
        output: Array,
        sample: Array,
        schedule: Schedule,
        index: int,
        memory: Any = None,
        noise: Array | None = None,
    ) -> tuple[Array, Any]:
        """The next sample from the model's output, and what the next step is to be given as `memory`."""

    def add_noise(self, sample: Array, noise: Array, schedule: Schedule, index: int) -> Array:
        """A clean sample with the noise that it has before the evaluation `index`: where image to image begins."""
