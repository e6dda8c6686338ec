"""How the sigmas of a schedule are spread between the highest and the lowest."""

from __future__ import annotations

from typing import Any

import numpy as np

from bestiary.schedulers.quantile import beta_quantile
from bestiary.schedulers.scheduler import Numbers


def karras(highest: float, lowest: float, steps: int, rho: float = 7.0) -> Numbers:
    """Karras et al. 2022, equation 5."""
    ramp = np.linspace(0, 1, steps)
    top, bottom = highest ** (1 / rho), lowest ** (1 / rho)
    return np.asarray((top + ramp * (bottom - top)) ** rho)


def exponential(highest: float, lowest: float, steps: int) -> Numbers:
    """Even in the logarithm."""
    return np.exp(np.linspace(np.log(highest), np.log(lowest), steps))


def beta(highest: float, lowest: float, steps: int, shape: float = 0.6) -> Numbers:
    """Lee et al. 2024, "Beta Sampling is All You Need": quantiles of a Beta distribution, dense at both ends."""
    return lowest + beta_quantile(1 - np.linspace(0, 1, steps), shape, shape) * (highest - lowest)


def spread(settings: Any, highest: float, lowest: float, steps: int) -> Numbers | None:
    """Sigmas [N] as the settings want them, or None where no key says how.

    `sigma_max` and `sigma_min` of the settings, where they are set, are taken for the ends.
    """
    first, last = getattr(settings, "sigma_max", None), getattr(settings, "sigma_min", None)
    ends = float(highest if first is None else first), float(lowest if last is None else last)
    if getattr(settings, "use_karras_sigmas", False):
        return karras(*ends, steps)
    # Lu's lambdas are the negative logarithms of these sigmas, spread evenly.
    if getattr(settings, "use_exponential_sigmas", False) or getattr(settings, "use_lu_lambdas", False):
        return exponential(*ends, steps)
    if getattr(settings, "use_beta_sigmas", False):
        return beta(*ends, steps)
    return None


def timesteps_of(sigmas: Numbers, table: Numbers) -> Numbers:
    """Where sigmas [N] lie in the table [T] of all timesteps, by their logarithms: fractions of timesteps too."""
    # The logarithms of the table are rounded as diffusers rounds them: they may decide where a timestep is cut off.
    logs = np.log(table.astype(np.float32)).astype(np.float64)
    return np.interp(np.log(np.maximum(sigmas, 1e-10)), logs, np.arange(len(table)))
