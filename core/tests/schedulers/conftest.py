"""diffusers as the reference: one path of one toy model, with the noise that both are given."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bestiary.schedulers import make_scheduler

TOLERANCE = 1e-5


def toy(sample: Any, timestep: float, channels: int = 1) -> Any:
    """A model: a function of sample and timestep that is not linear, and has the size of noise.

    It levels off: where there is hardly a picture a scheduler divides by 0.006, and float32 has no digits to spare.
    """
    made = sample * (1.2 + 0.5 * math.cos(timestep / 150.0)) / (1 + abs(sample)) + 0.3 * math.sin(timestep / 70.0)
    return made if channels == 1 else made[:, [0, 1, 2, 3, 3, 2, 1, 0]] * 0.7


def noise_of(seed: int, shape: tuple[int, ...] = (2, 4, 6, 6)) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def path_of(scheduler: Any, schedule: Any, channels: int = 1, begin: int = 0, start: Any = None) -> list[Any]:
    """The samples after each step, from `start`, or else from noise."""
    sample = noise_of(0) * schedule.noise_scale if start is None else start
    memory, path = None, []
    for index in range(begin, len(schedule)):
        output = toy(scheduler.scale_input(sample, schedule, index), schedule.timestep(index), channels)
        noise = noise_of(100 + index)
        noise = noise if isinstance(sample, np.ndarray) else sample.new_tensor(noise)
        noise = noise if scheduler.needs_noise else None
        sample, memory = scheduler.step(output, sample, schedule, index, memory, noise)
        path.append(sample)
    return path


def assert_near(ours: Any, theirs: Any, what: str) -> None:
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert ours.shape == theirs.shape, what
    assert np.isfinite(theirs).all(), f"the reference of {what} is not finite"
    difference = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12)
    assert difference <= TOLERANCE, f"{what}: {difference:.2e} of the largest"


@pytest.fixture(scope="session")
def diffusers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports, which are not ours to mend
        module = pytest.importorskip("diffusers", exc_type=ImportError)
    module.utils.logging.set_verbosity_error()
    return module


def theirs_of(diffusers: Any, name: str, keys: dict[str, Any], asked: dict[str, Any]) -> Any:
    """A scheduler of diffusers with its schedule set; it makes arrays of tensors in a way that numpy 2 warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = getattr(diffusers, name)(**keys)
        made.set_timesteps(**asked)
    return made


@pytest.fixture
def reference(diffusers: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, list[Any]]]:
    """(class name, keys, arguments of set_timesteps) -> (their scheduler, the samples after each step)."""
    import torch

    def run(
        name: str,
        keys: dict[str, Any],
        asked: dict[str, Any],
        channels: int = 1,
        begin: int = 0,
        start: Any = None,
        **step: Any,
    ) -> tuple[Any, list[Any]]:
        made = theirs_of(diffusers, name, keys, asked)
        index = begin

        def drawn(*_: Any, **__: Any) -> Any:
            return torch.from_numpy(noise_of(100 + index))

        module = sys.modules[type(made).__module__]
        if hasattr(module, "randn_tensor"):
            monkeypatch.setattr(module, "randn_tensor", drawn)
        if hasattr(made, "set_begin_index"):
            made.set_begin_index(begin)
        sample = torch.from_numpy(noise_of(0)) * float(getattr(made, "init_noise_sigma", 1.0))
        sample = sample if start is None else torch.from_numpy(start)
        path = []
        for index in range(begin, len(made.timesteps)):
            timestep = made.timesteps[index]
            given = made.scale_model_input(sample, timestep) if hasattr(made, "scale_model_input") else sample
            output = toy(given, float(timestep), channels)
            sample = made.step(output, timestep, sample, return_dict=False, **step)[0]
            path.append(sample.numpy())
        return made, path

    return run


@pytest.fixture
def compare(reference: Callable[..., tuple[Any, list[Any]]]) -> Callable[..., None]:
    """compare(class name, keys, steps): schedule and path are those of diffusers."""

    def run(
        name: str,
        keys: dict[str, Any] | None = None,
        steps: int | None = 20,
        asked: dict[str, Any] | None = None,
        ours: dict[str, Any] | None = None,
        channels: int = 1,
        **step: Any,
    ) -> None:
        keys, asked = keys or {}, asked or {}
        counted = {} if steps is None else {"num_inference_steps": steps}
        theirs, expected = reference(name, keys, {**counted, **asked}, channels, **step)
        made = make_scheduler({"_class_name": name, **keys}, **(ours or {}))
        schedule = made.schedule(steps, **asked)
        assert_near(schedule.timesteps, theirs.timesteps, "timesteps")
        if schedule.sigmas is not None:
            assert_near(schedule.sigmas, theirs.sigmas[: len(schedule) + 1], "sigmas")
        assert schedule.noise_scale == pytest.approx(float(getattr(theirs, "init_noise_sigma", 1.0)), rel=1e-6)
        path = path_of(made, schedule, channels)
        for index, (mine, other) in enumerate(zip(path, expected, strict=True)):
            assert mine.dtype == np.float32
            assert_near(mine, other, f"sample {index}")

    return run


@pytest.fixture(scope="session")
def helpers() -> Any:
    """noise_of, path_of, theirs_of and assert_near, for tests that need them by themselves."""
    return sys.modules[__name__]
