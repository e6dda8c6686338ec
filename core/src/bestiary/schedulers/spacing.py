"""Which of the timesteps of the training are taken."""

from __future__ import annotations

import numpy as np

from bestiary.errors import OptionError
from bestiary.schedulers.scheduler import Numbers


def spaced(spacing: str, steps: int, train: int, offset: int, *, last: int | None = None, more: int = 0) -> Numbers:
    """Timesteps [N], descending, of `train` (Lin et al. 2023, table 2); only "linspace" gives fractions.

    `last` of them are in use, all by default.  `more` is 1 for solvers that place one more and leave the lowest away.
    Raises OptionError where "leading" has no room for so many steps.
    """
    last = train if last is None else last
    if spacing == "linspace":
        return np.linspace(0, last - 1, steps + more)[::-1][:steps]
    if spacing == "leading":
        stride = last // (steps + more)
        if stride < 1:
            raise OptionError(
                f"{steps} steps are asked for; a schedule of leading timesteps has at most {last - more}.",
                fix=f'ask for {last - more} steps, or take timestep_spacing="linspace"',
            )
        return (np.arange(steps + more) * stride)[::-1][:steps].astype(np.float64) + offset
    timesteps = last - np.arange(steps) * (train / steps)
    return np.round(timesteps[timesteps > 0]) - 1
