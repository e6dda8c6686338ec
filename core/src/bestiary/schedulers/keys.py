"""Checks of configuration keys.  A key means the same for every scheduler, so that there is one table of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from bestiary.errors import ConfigError, shown

Check = Callable[[str, Any], None]
"""check(key, value): raises ConfigError for a value of the wrong type or out of its bounds."""

MOST_TIMESTEPS = 1 << 20


def whole(least: int, most: int) -> Check:
    def check(key: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f'"{key}" is {shown(value)}; a whole number from {least} to {most} is due.')

    return check


def number(least: float, most: float, optional: bool = False) -> Check:
    def check(key: str, value: Any) -> None:
        if value is None and optional:
            return
        # NaN is in no interval.
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigError(f'"{key}" is {shown(value)}; a number from {least:g} to {most:g} is due.')

    return check


def switch(key: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f'"{key}" is {shown(value)}; true or false is due.')


def one_of(*names: str) -> Check:
    def check(key: str, value: Any) -> None:
        if not isinstance(value, str) or value not in names:
            raise ConfigError(f'"{key}" is {shown(value)}; one of {", ".join(names)} is due.')

    return check


def several(member: Check, optional: bool = False) -> Check:
    def check(key: str, value: Any) -> None:
        if value is None and optional:
            return
        if not isinstance(value, list | tuple | np.ndarray) or len(value) > MOST_TIMESTEPS:
            raise ConfigError(f'"{key}" is {shown(value)}; a list is due.')
        for part in value.tolist() if isinstance(value, np.ndarray) else value:
            member(f"a member of {key}", part)

    return check


_BETA = number(1e-9, 1.0 - 1e-9)
SPREADS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
"""Keys that spread the sigmas in a way of their own; at most one is true."""

KEYS: Mapping[str, Check] = {
    "num_train_timesteps": whole(1, MOST_TIMESTEPS),
    "beta_start": _BETA,
    "beta_end": _BETA,
    "beta_schedule": one_of("linear", "scaled_linear", "squaredcos_cap_v2"),
    "trained_betas": several(_BETA, optional=True),
    "rescale_betas_zero_snr": switch,
    "prediction_type": one_of("epsilon", "v_prediction", "sample"),
    "timestep_spacing": one_of("linspace", "leading", "trailing"),
    "timestep_type": one_of("discrete", "continuous"),
    "steps_offset": whole(0, MOST_TIMESTEPS),
    "interpolation_type": one_of("linear", "log_linear"),
    "final_sigmas_type": one_of("zero", "sigma_min"),
    "sigma_min": number(1e-9, 1e9, optional=True),
    "sigma_max": number(1e-9, 1e9, optional=True),
    **dict.fromkeys(SPREADS, switch),
    "use_flow_sigmas": switch,
    "flow_shift": number(1e-4, 1e4),
    "shift": number(1e-4, 1e4),
    "use_dynamic_shifting": switch,
    "time_shift_type": one_of("exponential", "linear"),
    "base_shift": number(-10.0, 10.0, optional=True),
    "max_shift": number(-10.0, 10.0, optional=True),
    "base_image_seq_len": whole(1, 1 << 31),
    "max_image_seq_len": whole(1, 1 << 31),
    "invert_sigmas": switch,
    "shift_terminal": number(0.0, 1.0 - 1e-6, optional=True),
    "stochastic_sampling": switch,
    "clip_sample": switch,
    "clip_sample_range": number(1e-6, 1e6),
    "thresholding": switch,
    "dynamic_thresholding_ratio": number(0.0, 1.0),
    "sample_max_value": number(1.0, 1e6),
    "set_alpha_to_one": switch,
    "eta": number(0.0, 1.0),
    "variance_type": one_of("fixed_small", "fixed_small_log", "fixed_large", "learned_range"),
    "algorithm_type": one_of("dpmsolver++", "sde-dpmsolver++"),
    "solver_order": whole(1, 3),
    "lower_order_final": switch,
    "euler_at_final": switch,
    "lambda_min_clipped": number(-math.inf, 1e3),
    "disable_corrector": several(whole(0, MOST_TIMESTEPS)),
    "original_inference_steps": whole(1, MOST_TIMESTEPS),
    "timestep_scaling": number(1e-6, 1e6),
}


def spreads_of(settings: Any) -> list[str]:
    """Those of SPREADS that are set."""
    return [key for key in SPREADS if getattr(settings, key, False)]


def check_keys(settings: Any, own: Mapping[str, Check] | None = None) -> None:
    """Check every field of a record of settings; `own` are the keys that its class restricts further."""
    checks = {**KEYS, **(own or {})}
    for field in fields(settings):
        checks[field.name](field.name, getattr(settings, field.name))
    spreads = spreads_of(settings)
    if len(spreads) > 1:
        raise ConfigError(
            f"{' and '.join(spreads)} are set; the sigmas are spread in one way.", fix="leave one of them"
        )
