"""What is asked of a schedule, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestiary.errors import OptionError, shown
from bestiary.schedulers.scheduler import Numbers


@dataclass(frozen=True)
class Request:
    steps: int
    sigmas: Numbers | None = None
    timesteps: Numbers | None = None
    mu: float | None = None

    def whole_timesteps(self, train: int) -> Numbers:
        """A user's own timesteps, where each must be one of the `train` of the training.  Raises OptionError."""
        assert self.timesteps is not None
        if self.timesteps[0] >= train or (self.timesteps != self.timesteps.round()).any():
            raise OptionError(f"timesteps are to be whole numbers from 0 to {train - 1}, each lower than the last.")
        return self.timesteps


def request(
    scheduler: Any, steps: Any, sigmas: Any, timesteps: Any, mu: Any, *, most: int, highest: float, tail: int = 0
) -> Request:
    """The arguments of `Scheduler.schedule`, at most `most` steps.  Raises OptionError.

    `highest` bounds sigmas; timesteps are at most num_train_timesteps.  Own sigmas have `tail` members more than steps.
    """
    name = type(scheduler).__name__
    for key, value in (("sigmas", sigmas), ("timesteps", timesteps), ("mu", mu)):
        if value is not None and key not in scheduler.accepts:
            raise OptionError(
                f"{name} with these settings takes no {key}.",
                fix=f"leave {key} away, or choose another scheduler or other settings",
            )
    if sigmas is not None and timesteps is not None:
        raise OptionError("Both sigmas and timesteps are given; one follows from the other.", fix="give one of them")
    if mu is not None and (isinstance(mu, bool) or not isinstance(mu, int | float) or not abs(mu) <= 10.0):
        raise OptionError(f"mu is {shown(mu)}; a number from -10 to 10 is due.")
    if "mu" in scheduler.accepts and mu is None:
        raise OptionError(
            "The shift of this schedule follows the size of the picture (use_dynamic_shifting); mu is due.",
            fix="mu=calculate_shift(image_seq_len, ...), or use_dynamic_shifting=False for the fixed shift",
        )
    own_sigmas = None if sigmas is None else descending("sigmas", sigmas, highest, most + tail)
    own_timesteps = (
        None if timesteps is None else descending("timesteps", timesteps, scheduler.num_train_timesteps, most)
    )
    count = None
    if own_sigmas is not None:
        count = len(own_sigmas) - tail
    elif own_timesteps is not None:
        count = len(own_timesteps)
    if count is not None and steps is None:
        steps = count
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise OptionError(f"steps is {shown(steps)}; a whole number from 1 to {most} is due.")
    if steps > most:
        raise OptionError(
            f"{steps} steps are asked for; this schedule has at most {most}.", fix=f"ask for {most} steps"
        )
    if count is not None and count != steps:
        given = "timesteps" if sigmas is None else "sigmas"
        raise OptionError(
            f"{steps} steps are asked for, but the {given} make {count}.",
            fix=f"leave steps away, or give {steps + (tail if given == 'sigmas' else 0)} {given}",
        )
    return Request(int(steps), own_sigmas, own_timesteps, None if mu is None else float(mu))


def descending(name: str, values: Any, highest: float, most: int) -> Numbers:
    """A user's own numbers, each lower than the one before it and none below 0.  Raises OptionError."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError):
        array = np.asarray(None)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not 1 <= len(array) <= most:
        raise OptionError(f"{name} is {shown(values)}; a list of 1 to {most} numbers is due.")
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > highest:
        bound = "" if math.isinf(highest) else f" to {highest:g}"
        raise OptionError(f"{name} is {shown(values)}; finite numbers from 0{bound} are due.")
    if (np.diff(numbers) >= 0).any():
        raise OptionError(f"{name} is {shown(values)}; each must be lower than the one before it.")
    return numbers
