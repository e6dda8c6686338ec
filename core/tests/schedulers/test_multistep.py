"""DPM-Solver++ and UniPC: schedules and paths are those of diffusers, over all settings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Compare = Callable[..., None]
DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}

SHARED: list[dict[str, Any]] = [
    {},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "v_prediction"},
    {"prediction_type": "sample"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"final_sigmas_type": "sigma_min"},
    {"thresholding": True},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    FLOW,
    {**FLOW, "flow_shift": 3.0},
]


@pytest.mark.parametrize(
    "solver",
    [{}, {"solver_order": 1}, {"solver_order": 3}, {"solver_type": "heun"}, {"algorithm_type": "sde-dpmsolver++"}],
    ids=str,
)
@pytest.mark.parametrize("keys", SHARED, ids=str)
def test_dpm_solver(compare: Compare, keys: dict[str, Any], solver: dict[str, Any]) -> None:
    compare(DPM, {**keys, **solver})


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
@pytest.mark.parametrize(
    "keys",
    [
        {"solver_order": 3},
        {"solver_order": 3, **FLOW},
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        {"lower_order_final": False},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
    ],
    ids=str,
)
def test_dpm_solver_at_its_end(compare: Compare, keys: dict[str, Any], steps: int) -> None:
    compare(DPM, keys, steps)


@pytest.mark.parametrize(
    "keys",
    [
        {"use_lu_lambdas": True},
        {"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"},
        {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
    ],
    ids=str,
)
def test_dpm_solver_alone(compare: Compare, keys: dict[str, Any]) -> None:
    compare(DPM, keys)
    compare(DPM, {}, None, {"timesteps": [999, 800, 500, 100]})


def test_dynamic_shift(compare: Compare) -> None:
    compare(DPM, {**FLOW, "use_dynamic_shifting": True}, 20, {"mu": 0.9})
    keys = {**FLOW, "use_dynamic_shifting": True}
    compare(UNIPC, keys, 20, {"mu": 0.9})
    compare(UNIPC, {**keys, "shift_terminal": 0.1}, 20, {"mu": 0.9, "sigmas": np.linspace(1, 0.05, 20)})


@pytest.mark.parametrize(
    "solver",
    [
        {},
        {"solver_order": 1, "disable_corrector": [0, 1, 5]},
        {"solver_order": 3},
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
    ],
    ids=str,
)
@pytest.mark.parametrize("keys", SHARED, ids=str)
def test_unipc(compare: Compare, keys: dict[str, Any], solver: dict[str, Any]) -> None:
    compare(UNIPC, {**keys, **solver})


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_unipc_in_few_steps(compare: Compare, steps: int) -> None:
    for order in (1, 2, 3):
        compare(UNIPC, {"solver_order": order}, steps)
        compare(UNIPC, {"solver_order": order, **FLOW}, steps)


@pytest.mark.parametrize(
    "keys",
    [
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 50.0},
        {**FLOW, "use_karras_sigmas": True},
        {**FLOW, "shift_terminal": 0.1, "flow_shift": 2.0},
    ],
    ids=str,
)
def test_unipc_alone(compare: Compare, keys: dict[str, Any]) -> None:
    compare(UNIPC, keys)


def test_unipc_with_own_sigmas(compare: Compare) -> None:
    compare(UNIPC, {**FLOW, "flow_shift": 3.0}, None, {"sigmas": np.array([0.95, 0.7, 0.4, 0.2])})
