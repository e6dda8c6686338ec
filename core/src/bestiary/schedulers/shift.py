"""Shifts of the sigmas of flow models towards noise: larger pictures need more of it (Esser et al. 2024)."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from bestiary.errors import ConfigError, OptionError
from bestiary.schedulers.scheduler import Numbers

_Sigmas = TypeVar("_Sigmas", float, Numbers)


def calculate_shift(
    image_seq_len: int,
    base_image_seq_len: int = 256,
    max_image_seq_len: int = 4096,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
) -> float:
    """mu for a picture of so many tokens: a straight line through the two points that the configuration states."""
    if base_image_seq_len == max_image_seq_len:
        raise ConfigError('"base_image_seq_len" and "max_image_seq_len" are the same; a line has two points.')
    slope = (max_shift - base_shift) / (max_image_seq_len - base_image_seq_len)
    return base_shift + slope * (image_seq_len - base_image_seq_len)


def mu_for(scheduler: Any, image_seq_len: int) -> float | None:
    """The `mu` that a schedule for a picture of so many tokens is to be given; None where the shift is fixed.

    Settings without the two points (those of DPM-Solver and UniPC) are taken to have the usual ones.
    """
    if "mu" not in scheduler.accepts:
        return None
    keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    stated = {key: getattr(scheduler, key, None) for key in keys}
    return calculate_shift(image_seq_len, **{key: value for key, value in stated.items() if value is not None})


def shifted(sigmas: _Sigmas, factor: float) -> _Sigmas:
    """Sigmas from 0 to 1 with the odds of noise against picture times `factor`; 0 and 1 stay."""
    return factor * sigmas / (1 + (factor - 1) * sigmas)


def factor_of(mu: float, time_shift_type: str) -> float:
    """The factor that `mu` stands for: itself ("linear") or the logarithm of it ("exponential")."""
    if time_shift_type == "exponential":
        return math.exp(mu)
    if mu <= 0:
        raise OptionError(f"mu is {mu:g}; a number above 0 is due where the shift is linear.")
    return mu


def stretched(sigmas: Numbers, lowest: float | None) -> Numbers:
    """Sigmas [N] stretched away from 1, so that the last is `lowest` (LTX-Video); None or 0 leaves them."""
    if not lowest:
        return sigmas
    if sigmas[-1] >= 1.0:
        raise OptionError(
            "A schedule that only has noise cannot end elsewhere (shift_terminal).", fix="take more steps"
        )
    return np.asarray(1 - (1 - sigmas) * ((1 - lowest) / (1 - sigmas[-1])))
