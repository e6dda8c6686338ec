"""Schedulers by name, from files, and on the file of another."""

import json
import logging
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import ConfigError, OptionError
from bestiary.schedulers import calculate_shift, make_scheduler, mu_for
from bestiary.schedulers.choice import CLASSES, NAMES
from bestiary.schedulers.dpm_solver import DPMSolver
from bestiary.schedulers.euler import Euler
from bestiary.schedulers.flow_match_euler import FlowMatchEuler
from bestiary.schedulers.flow_match_heun import FlowMatchHeun
from bestiary.schedulers.keys import KEYS
from bestiary.schedulers.unipc import UniPC

FLUX = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": "0.30.0.dev0",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
STABLE = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def test_every_name_makes_a_scheduler() -> None:
    for name in (*NAMES, *CLASSES):
        assert len(make_scheduler(name).schedule(4)) >= 4
    assert make_scheduler("DPM++ 2M SDE Karras") == DPMSolver(algorithm_type="sde-dpmsolver++", use_karras_sigmas=True)
    assert make_scheduler("euler", use_karras_sigmas=True) == make_scheduler("euler_karras")


def test_every_key_has_a_check() -> None:
    for cls in CLASSES.values():
        assert {field.name for field in fields(cls)} <= set(KEYS) | {"solver_type"}  # type: ignore[arg-type]


def test_every_key_of_diffusers_has_a_place(diffusers: Any, helpers: Any, caplog: pytest.LogCaptureFixture) -> None:
    for name in CLASSES:
        stated = dict(helpers.theirs_of(diffusers, name, {}, {"num_inference_steps": 2}).config)
        with caplog.at_level(logging.WARNING):
            made = make_scheduler({**stated, "_class_name": name})
        assert made == make_scheduler(name), name
    assert not caplog.records


def test_the_file_of_a_real_checkpoint(shared_data: Path) -> None:
    file = shared_data / "checkpoints/flux.1-schnell-bnb8/scheduler/scheduler_config.json"
    if not file.is_file():
        pytest.skip("the checkpoint is not here")
    made = make_scheduler(json.loads(file.read_text()))
    assert made == FlowMatchEuler()
    assert made.schedule(4, sigmas=[1.0, 0.75, 0.5, 0.25]).timesteps.tolist() == [1000.0, 750.0, 500.0, 250.0]


def test_unknown_names_and_keys_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OptionError, match="euler_ancestral"):
        make_scheduler("euler_ancestrl")
    with pytest.raises(OptionError, match="use_karras_sigmas"):
        make_scheduler("euler", use_karas_sigmas=True)
    with pytest.raises(ConfigError, match="PNDMScheduler"):
        make_scheduler(STABLE)
    with caplog.at_level(logging.WARNING):
        make_scheduler({"_class_name": "EulerDiscreteScheduler", "beta_strat": 0.1})
    assert "beta_strat" in caplog.text and "beta_start" in caplog.text


@pytest.mark.parametrize(
    "name, changes",
    [
        ("euler", {"beta_start": "0.1"}),
        ("euler", {"beta_start": float("nan")}),
        ("euler", {"num_train_timesteps": True}),
        ("euler", {"num_train_timesteps": 1000.0}),
        ("euler", {"num_train_timesteps": 1}),
        ("euler", {"num_train_timesteps": 10**12}),
        ("euler", {"beta_schedule": ["linear"]}),
        ("euler", {"beta_start": 0.9, "beta_end": 0.99}),
        ("euler", {"trained_betas": [0.1, 0.2]}),
        ("euler", {"trained_betas": "0.1"}),
        ("euler", {"trained_betas": [0.1, None]}),
        ("euler", {"use_karras_sigmas": True, "use_beta_sigmas": True}),
        ("euler", {"prediction_type": "flow_prediction"}),
        ("ddim", {"clip_sample_range": -1}),
        ("ddpm", {"variance_type": "learned"}),
        ("dpmpp_2m", {"algorithm_type": "dpmsolver"}),
        ("dpmpp_2m", {"prediction_type": "flow_prediction"}),
        ("dpmpp_2m", {"use_flow_sigmas": True, "use_karras_sigmas": True}),
        ("dpmpp_2m", {"solver_type": "bh2"}),
        ("dpmpp_2m", {"variance_type": "learned_range"}),
        ("unipc", {"solver_order": 4}),
        ("unipc", {"predict_x0": False}),
        ("unipc", {"disable_corrector": [0.5]}),
        ("unipc", {"shift_terminal": 0.1}),
        ("lcm", {"original_inference_steps": 2000}),
        ("flow_match_euler", {"shift": 0}),
        ("flow_match_euler", {"shift": float("inf")}),
        ("flow_match_euler", {"time_shift_type": None}),
        ("flow_match_euler", {"shift_terminal": 1.0}),
    ],
    ids=str,
)
def test_wrong_values_are_config_errors_of_a_file_and_option_errors_of_a_user(
    name: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(OptionError):
        make_scheduler(name, **changes)
    class_name = NAMES[name][0]
    stated = {"_class_name": class_name, **{key: value for key, value in changes.items() if value is not None}}
    if len(stated) > 1:
        with pytest.raises(ConfigError) as error:
            make_scheduler(stated)
        assert error.value.where == "scheduler_config.json"


def test_another_scheduler_on_the_file_of_one() -> None:
    made = make_scheduler("euler", base=STABLE)
    assert made == Euler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
    made = make_scheduler("flow_match_heun", base=FLUX)
    assert made == FlowMatchHeun(shift=3.0, use_dynamic_shifting=True)
    made = make_scheduler("dpmpp_2m", base=FLUX)
    assert made == DPMSolver(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0, use_dynamic_shifting=True
    )
    file = {"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1", "use_flow_sigmas": True, "flow_shift": 5.0}
    assert make_scheduler("flow_match_euler", base=file) == FlowMatchEuler(shift=5.0)
    assert make_scheduler("dpmpp_2m", base=file) == DPMSolver(use_flow_sigmas=True, flow_shift=5.0)
    assert make_scheduler("unipc", base=file) == UniPC(use_flow_sigmas=True, flow_shift=5.0, solver_type="bh1")
    assert make_scheduler("unipc", base=FLUX, use_dynamic_shifting=False).schedule(3)


@pytest.mark.parametrize("name", ["euler", "euler_a", "ddim", "ddpm", "lcm"])
def test_a_flow_model_is_not_sampled_as_one_of_noise(name: str) -> None:
    with pytest.raises(OptionError, match="flow"):
        make_scheduler(name, base=FLUX)
    with pytest.raises(OptionError, match="noise"):
        make_scheduler("flow_match_euler", base=STABLE)


def test_a_scheduler_stands_for_itself() -> None:
    made = make_scheduler("unipc")
    assert make_scheduler(made) is made
    assert make_scheduler(made, solver_order=3) == UniPC(solver_order=3)


def test_dynamic_shift_by_the_size_of_the_picture() -> None:
    # The two points that the configuration states, and the middle of the line.
    assert calculate_shift(256) == pytest.approx(0.5) and calculate_shift(4096) == pytest.approx(1.15)
    assert calculate_shift(2176) == pytest.approx(0.825)
    assert mu_for(make_scheduler(FLUX), 4096) == pytest.approx(1.15)
    assert mu_for(make_scheduler(FLUX, use_dynamic_shifting=False), 4096) is None
    with pytest.raises(ConfigError):
        calculate_shift(100, 256, 256)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from bestiary.schedulers import make_scheduler; make_scheduler('unipc').schedule(3);"
        "assert not {'torch', 'scipy', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
