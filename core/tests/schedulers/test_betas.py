"""Models trained on betas: schedules and paths of the one-step methods are those of diffusers, over all settings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bestiary.schedulers.euler import Euler

Compare = Callable[..., None]

BETAS: list[dict[str, Any]] = [
    {},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": np.linspace(0.001, 0.03, 300).tolist(), "num_train_timesteps": 300},
]
SPACINGS: list[dict[str, Any]] = [
    {"timestep_spacing": "linspace"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
]
KINDS: list[dict[str, Any]] = [{"prediction_type": kind} for kind in ("epsilon", "v_prediction", "sample")]
ZERO_SNR = {
    "rescale_betas_zero_snr": True,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "beta_schedule": "scaled_linear",
}
EULER, ANCESTRAL = "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"
TABLES = [*BETAS, *SPACINGS, *KINDS, ZERO_SNR]


@pytest.mark.parametrize(
    "keys",
    [
        *TABLES,
        {"interpolation_type": "log_linear"},
        {"use_karras_sigmas": True},
        {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 20.0},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
        {"final_sigmas_type": "sigma_min"},
        {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True},
        {"prediction_type": "original_sample"},
    ],
    ids=lambda keys: str(keys)[:80],
)
def test_euler(compare: Compare, keys: dict[str, Any]) -> None:
    compare(EULER, keys)


def test_euler_with_own_sigmas_and_timesteps(compare: Compare) -> None:
    compare(EULER, BETAS[1], None, {"sigmas": [14.6, 6.3, 3.8, 1.2, 0.4, 0.0]})
    compare(EULER, {**BETAS[1], "use_karras_sigmas": True}, None, {"sigmas": [14.6, 6.3, 0.4, 0.0]})
    compare(EULER, BETAS[1], None, {"timesteps": [999, 845, 730, 20.5]})


@pytest.mark.parametrize(
    "keys", [keys for keys in TABLES if keys.get("prediction_type") != "sample"], ids=lambda keys: str(keys)[:80]
)
def test_euler_ancestral(compare: Compare, keys: dict[str, Any]) -> None:
    compare(ANCESTRAL, keys)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(
    "keys",
    [
        *TABLES,
        {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
        {"clip_sample_range": 0.4},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.5},
    ],
    ids=lambda keys: str(keys)[:80],
)
def test_ddim(compare: Compare, keys: dict[str, Any], eta: float) -> None:
    if keys is ZERO_SNR and eta == 1.0:
        pytest.skip("diffusers takes the root of a number just below 0")
    compare("DDIMScheduler", keys, ours={"eta": eta}, eta=eta)


@pytest.mark.parametrize(
    "keys",
    [
        *TABLES,
        {"clip_sample": False, "steps_offset": 1, "variance_type": "fixed_large"},
        {"variance_type": "fixed_small_log"},
        {"thresholding": True},
    ],
    ids=lambda keys: str(keys)[:80],
)
def test_ddpm(compare: Compare, keys: dict[str, Any]) -> None:
    compare("DDPMScheduler", keys)


def test_ddpm_learns_its_variance(compare: Compare) -> None:
    compare("DDPMScheduler", {"variance_type": "learned_range"}, channels=2)


def test_ddpm_with_own_timesteps(compare: Compare) -> None:
    compare("DDPMScheduler", {}, None, {"timesteps": [999, 700, 250, 30, 0]})


@pytest.mark.parametrize("steps", [1, 4, 20, 50])
@pytest.mark.parametrize(
    "keys", [*BETAS[1:3], *KINDS, {"clip_sample": True}, {"original_inference_steps": 100}], ids=lambda k: str(k)[:80]
)
def test_lcm(compare: Compare, keys: dict[str, Any], steps: int) -> None:
    compare("LCMScheduler", keys, steps)


def test_lcm_with_own_timesteps(compare: Compare) -> None:
    compare("LCMScheduler", {}, None, {"timesteps": [999, 759, 499, 259]})


@pytest.mark.parametrize("name", [EULER, ANCESTRAL, "DDIMScheduler", "DDPMScheduler"])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_one_step(compare: Compare, name: str, spacing: str) -> None:
    # Clipped to 1, what is divided by 0.006 would be compared with a small number.
    unclipped = {} if name.startswith("Euler") else {"clip_sample": False}
    compare(name, {"timestep_spacing": spacing, **unclipped}, 1)


@pytest.mark.parametrize("keys", [*BETAS[:3], ZERO_SNR], ids=lambda keys: str(keys)[:80])
def test_tables_are_those_of_diffusers_to_the_last_digits(diffusers: Any, keys: dict[str, Any]) -> None:
    theirs = diffusers.DPMSolverMultistepScheduler(**keys).sigmas.numpy()
    ours = Euler(**keys).sigma_table
    # At the end of a schedule without signal a difference of two roots decides, of which torch rounds some otherwise.
    assert np.abs(ours / theirs - 1).max() < (1e-4 if keys is ZERO_SNR else 5e-7)
