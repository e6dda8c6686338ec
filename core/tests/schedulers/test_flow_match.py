"""Flow matching: schedules and paths are those of diffusers, over all settings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

EULER, HEUN = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"
Compare = Callable[..., None]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"shift": 3.0},
        {"shift": 3.0, "shift_terminal": 0.1},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True, "shift": 1.7},
        {"use_beta_sigmas": True},
        {"stochastic_sampling": True, "shift": 3},
        {"invert_sigmas": True},
        {"invert_sigmas": True, "shift": 2.0, "use_beta_sigmas": True},
        {"num_train_timesteps": 700, "shift": 0.6},
    ],
    ids=str,
)
@pytest.mark.parametrize("steps", [2, 20])
def test_euler(compare: Compare, keys: dict[str, Any], steps: int) -> None:
    compare(EULER, keys, steps)


@pytest.mark.parametrize("mu", [0.5, 1.15, 0.83])
@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("more", [{}, {"shift_terminal": 0.2}, {"use_karras_sigmas": True}], ids=str)
def test_dynamic_shift(compare: Compare, mu: float, kind: str, more: dict[str, Any]) -> None:
    keys = {"use_dynamic_shifting": True, "time_shift_type": kind, "shift": 3.0, **more}
    compare(EULER, keys, 20, {"mu": mu})
    compare(EULER, keys, 20, {"mu": mu, "sigmas": np.linspace(1.0, 1 / 20, 20)})


@pytest.mark.parametrize("keys", [{}, {"shift": 3.0}, {"shift": 3.0, "use_exponential_sigmas": True}], ids=str)
def test_own_sigmas_and_timesteps(compare: Compare, keys: dict[str, Any]) -> None:
    compare(EULER, keys, None, {"sigmas": [1.0, 0.7, 0.35, 0.1]})
    compare(EULER, keys, 4, {"sigmas": [0.9, 0.7, 0.35, 0.1]})
    compare(EULER, keys, None, {"timesteps": [1000, 800, 500, 20]})


def test_own_timesteps_beside_inverted_sigmas(compare: Compare) -> None:
    compare(EULER, {"invert_sigmas": True}, None, {"timesteps": [999.0, 500.0, 20.0]})


@pytest.mark.parametrize("keys", [{}, {"shift": 3.0}, {"num_train_timesteps": 400}], ids=str)
@pytest.mark.parametrize("steps", [1, 8, 20])
def test_heun(compare: Compare, keys: dict[str, Any], steps: int) -> None:
    compare(HEUN, keys, steps)


@pytest.mark.parametrize("steps", [1, 1000])
def test_few_and_many(compare: Compare, steps: int) -> None:
    compare(EULER, {"shift": 3.0}, steps)
