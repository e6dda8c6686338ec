"""What is asked of a schedule, the loop over it, and the noise of a picture that is taken up in its middle."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bestiary.errors import OptionError
from bestiary.schedulers import make_scheduler
from bestiary.schedulers.choice import CLASSES
from bestiary.schedulers.quantile import beta_distribution, beta_quantile

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("steps", [0, -1, True, 2.0, "4", None, float("nan"), 1001, 10**30])
def test_steps_are_a_whole_number_within_bounds(name: str, steps: Any) -> None:
    with pytest.raises(OptionError, match="steps"):
        make_scheduler(name).schedule(steps)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("steps", [1, 999, 1000])
def test_one_step_and_a_thousand(name: str, steps: int, helpers: Any) -> None:
    made = make_scheduler(name)
    if name == "LCMScheduler" and steps > 1:
        with pytest.raises(OptionError, match="distilled from 50"):
            made.schedule(steps)
        return
    path = helpers.path_of(made, made.schedule(steps))
    assert np.isfinite(path[-1]).all()


@pytest.mark.parametrize(
    "name, keys, refused",
    [
        ("DPMSolverMultistepScheduler", {"timestep_spacing": "leading"}, "at most 999"),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, None),
        ("UniPCMultistepScheduler", {"solver_order": 3}, None),
        ("UniPCMultistepScheduler", {"lower_order_final": False, "solver_type": "bh1"}, None),
        ("UniPCMultistepScheduler", {"solver_order": 3, **FLOW}, None),
        ("DPMSolverMultistepScheduler", {"solver_order": 3, **FLOW, "flow_shift": 1e4}, None),
        ("DDIMScheduler", {"steps_offset": 1}, "steps_offset"),
        ("DDPMScheduler", {"timestep_spacing": "trailing"}, None),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing", "use_beta_sigmas": True}, None),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}, None),
    ],
    ids=str,
)
def test_a_thousand_steps_of_other_settings(name: str, keys: dict[str, Any], refused: str | None, helpers: Any) -> None:
    made = make_scheduler(name, **keys)
    if refused:
        with pytest.raises(OptionError, match=refused):
            made.schedule(1000)
    else:
        assert np.isfinite(helpers.path_of(made, made.schedule(1000))[-1]).all()


@pytest.mark.parametrize("steps", range(1, 300))
def test_trailing_timesteps_are_as_many_as_asked(steps: int) -> None:
    for name in ("euler", "ddim", "dpmpp_2m", "unipc"):
        told = make_scheduler(name, timestep_spacing="trailing").schedule(steps).timesteps
        assert len(told) == steps and told[0] == 999 and told[-1] >= 0


@pytest.mark.parametrize(
    "sigmas",
    [[], [[1.0]], "1.0", [float("nan")], [1.0, float("inf")], [0.5, -0.1], [0.5, 0.5], [0.2, 0.9], [1.5, 0.5], [True],
     [None], 0.5, [1.0, "a"], {1.0: 2}, [1.0, [0.5]]],
    ids=str,
)  # fmt: skip
def test_own_numbers_are_checked(sigmas: Any) -> None:
    made = make_scheduler("flow_match_euler")
    with pytest.raises(OptionError, match="sigmas"):
        made.schedule(sigmas=sigmas)


def test_what_does_not_go_together() -> None:
    flow, dynamic = make_scheduler("flow_match_euler"), make_scheduler("flow_match_euler", use_dynamic_shifting=True)
    with pytest.raises(OptionError, match="Both"):
        flow.schedule(sigmas=[1.0, 0.5], timesteps=[1000, 500])
    with pytest.raises(OptionError, match="make 2"):
        flow.schedule(3, sigmas=[1.0, 0.5])
    with pytest.raises(OptionError, match="mu"):
        flow.schedule(4, mu=0.5)
    for mu in (None, True, "1", float("nan"), 1e9):
        with pytest.raises(OptionError, match="mu"):
            dynamic.schedule(4, mu=mu)
    with pytest.raises(OptionError, match="linear"):
        make_scheduler("flow_match_euler", use_dynamic_shifting=True, time_shift_type="linear").schedule(4, mu=-0.5)
    with pytest.raises(OptionError, match="shift_terminal"):
        make_scheduler("flow_match_euler", shift_terminal=0.1).schedule(1)
    with pytest.raises(OptionError, match="timesteps"):
        make_scheduler("ddpm").schedule(timesteps=[1000, 3])
    with pytest.raises(OptionError, match="whole"):
        make_scheduler("lcm").schedule(timesteps=[900.5, 3])
    for name, keys in itertools.product(("ddim", "euler_a", "unipc"), ({"sigmas": [0.5]}, {"timesteps": [3]})):
        with pytest.raises(OptionError, match="takes no"):
            make_scheduler(name).schedule(1, **keys)  # type: ignore[arg-type]


def test_what_a_step_lacks_is_told(helpers: Any) -> None:
    sample = helpers.noise_of(0)
    for name in CLASSES:
        made = make_scheduler(name)
        schedule = made.schedule(4)
        for index in (-1, len(schedule)):
            with pytest.raises(OptionError, match="index"):
                made.step(sample, sample, schedule, index)
        if made.needs_noise:
            with pytest.raises(OptionError, match="noise is due"):
                made.step(sample, sample, schedule, 0)
    heun = make_scheduler("flow_match_heun")
    with pytest.raises(OptionError, match="even index"):
        heun.step(sample, sample, heun.schedule(4), 1)
    with pytest.raises(OptionError, match="channels"):
        made = make_scheduler("ddpm", variance_type="learned_range")
        made.step(sample, sample, made.schedule(4), 0, None, sample)
    with pytest.raises(OptionError, match="noise alone"):
        made = make_scheduler("ddim", rescale_betas_zero_snr=True, timestep_spacing="trailing")
        made.step(sample, sample, made.schedule(4), 0)


def test_schedules_are_not_written_to() -> None:
    schedule = make_scheduler("euler").schedule(4)
    assert schedule.sigmas is not None and len(schedule) == 4
    for values in (schedule.timesteps, schedule.sigmas):
        with pytest.raises(ValueError):
            values[0] = 1


@pytest.mark.parametrize("name", CLASSES)
def test_tensors_stay_tensors_and_have_the_numbers_of_arrays(name: str, helpers: Any) -> None:
    import torch

    made = make_scheduler(name)
    schedule = made.schedule(6)
    start = helpers.noise_of(1)
    arrays = helpers.path_of(made, schedule, start=start)
    for dtype in (torch.float32, torch.float64):
        tensors = helpers.path_of(made, schedule, start=torch.from_numpy(start).to(dtype))
        assert all(tensor.dtype == dtype for tensor in tensors)
        helpers.assert_near(arrays[-1], tensors[-1], name)


@pytest.mark.parametrize("name", [name for name in CLASSES if "Heun" not in name])
def test_a_picture_taken_up_in_the_middle(
    name: str, diffusers: Any, reference: Callable[..., Any], helpers: Any
) -> None:
    import torch

    made = make_scheduler(name)
    schedule = made.schedule(20)
    begin = schedule.start(0.6)
    assert begin == 8
    clean, noise = helpers.noise_of(5) * 0.5, helpers.noise_of(6)
    noisy = made.add_noise(clean, noise, schedule, begin)
    _, expected = reference(name, {}, {"num_inference_steps": 20}, begin=begin, start=noisy)
    fresh = helpers.theirs_of(diffusers, name, {}, {"num_inference_steps": 20})
    add = fresh.add_noise if hasattr(fresh, "add_noise") else fresh.scale_noise
    at, tensors = fresh.timesteps[begin : begin + 1], (torch.from_numpy(clean), torch.from_numpy(noise))
    theirs = add(*tensors, at) if hasattr(fresh, "add_noise") else add(tensors[0], at, tensors[1])
    helpers.assert_near(noisy, theirs, "the noisy picture")
    path = helpers.path_of(made, schedule, begin=begin, start=noisy)
    for index, (mine, other) in enumerate(zip(path, expected, strict=True)):
        helpers.assert_near(mine, other, f"sample {index}")


def test_where_a_picture_is_taken_up() -> None:
    schedule = make_scheduler("flow_match_euler").schedule(28)
    assert [schedule.start(strength) for strength in (1.0, 0.6, 0.001)] == [0, 11, 27]
    heun = make_scheduler("flow_match_heun").schedule(10)
    assert len(heun) == 19 and heun.start(0.5) == 10 and heun.start(1e-9) == 18
    for strength in (0, -0.1, 1.1, True, "0.5", float("nan")):
        with pytest.raises(OptionError, match="strength"):
            schedule.start(strength)  # type: ignore[arg-type]


def test_heun_follows_every_setting_of_flow(helpers: Any) -> None:
    """Keys that diffusers' class does not have: the sigmas are those of Euler, and the method is of second order."""
    keys = {"use_dynamic_shifting": True, "invert_sigmas": True, "use_karras_sigmas": True}
    euler = make_scheduler("flow_match_euler", **keys).schedule(5, mu=0.8)
    heun = make_scheduler("flow_match_heun", **keys).schedule(5, mu=0.8)
    assert euler.sigmas is not None and heun.sigmas is not None
    assert sorted(set(heun.sigmas)) == sorted(set(euler.sigmas))

    def error(name: str, steps: int) -> float:
        made = make_scheduler(name)
        schedule = made.schedule(steps, sigmas=np.linspace(1.0, 1 / steps, steps))
        sample, memory = np.ones(1), None
        for index in range(len(schedule)):  # x' = x, of which the end is known
            sample, memory = made.step(sample, sample, schedule, index, memory)
        return abs(float(sample[0]) - float(np.exp(-1.0)))

    # Its last step is one of Euler's, so that the error falls with the square of the steps, but not by more.
    assert error("flow_match_heun", 40) < error("flow_match_heun", 20) / 3.5
    assert error("flow_match_heun", 20) < error("flow_match_euler", 20) / 3


def test_the_third_order_of_the_sde_is_that_of_k_diffusion(helpers: Any) -> None:
    """Written as k-diffusion's sample_dpmpp_3m_sde has it; diffusers adds 1 to the weight of the second difference."""
    made = make_scheduler("dpmpp_2m_sde", solver_order=3, prediction_type="sample", lower_order_final=False)
    schedule = made.schedule(6)
    assert schedule.sigmas is not None
    sigmas = schedule.sigmas
    index, x, noise = 3, helpers.noise_of(1).astype(np.float64), helpers.noise_of(2)
    pictures = [helpers.noise_of(seed).astype(np.float64) for seed in (3, 4, 5)]  # the latest last
    ours, _ = made.step(pictures[2], x, schedule, index, tuple(pictures[:2]), noise)

    h, h_1, h_2 = (float(np.log(sigmas[index - back] / sigmas[index + 1 - back])) for back in (0, 1, 2))
    scale = np.sqrt(1 + sigmas**2)  # k-diffusion's samples are picture + sigma * noise
    eta = 2 * h
    y = np.exp(-eta) * x * scale[index] - np.expm1(-eta) * pictures[2]
    r0, r1 = h_1 / h, h_2 / h
    d1_0, d1_1 = (pictures[2] - pictures[1]) / r0, (pictures[1] - pictures[0]) / r1
    d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
    d2 = (d1_0 - d1_1) / (r0 + r1)
    phi_2 = np.expm1(-eta) / eta + 1
    phi_3 = phi_2 / eta - 0.5
    y = y + phi_2 * d1 - phi_3 * d2 + noise * sigmas[index + 1] * np.sqrt(-np.expm1(-2 * h))
    np.testing.assert_allclose(ours, y / scale[index + 1], rtol=0, atol=1e-6)


def test_the_quantile_of_the_beta_distribution() -> None:
    special = pytest.importorskip("scipy.special")
    p = np.concatenate([np.linspace(0, 1, 201), [1e-9, 1e-4, 1 - 1e-9]])
    for a, b in ((0.6, 0.6), (2.0, 5.0), (0.5, 3.0), (30.0, 1.0)):
        np.testing.assert_allclose(beta_distribution(p, a, b), special.betainc(a, b, p), rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(beta_quantile(p, a, b), special.betaincinv(a, b, p), rtol=1e-9, atol=1e-13)
