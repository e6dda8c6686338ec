"""One step of UniPC, forward or corrected (Zhao et al. 2023)."""

from __future__ import annotations

import math

import numpy as np

from bestiary.schedulers.multistep import Multistep
from bestiary.schedulers.scheduler import Array, Schedule


def advance(
    solver: Multistep,
    kind: str,
    schedule: Schedule,
    index: int,
    order: int,
    pictures: tuple[Array, ...],
    begin: Array,
    end: Array,
    ahead: Array | None,
) -> Array:
    """From the sample at `index` to the next sigma.

    The corrector knows the picture `ahead`, which was predicted at the `end` of the step; the predictor does not.
    B(h) is h (bh1) or exp(h) - 1 (bh2), for h of the other sign as pictures are predicted.
    """
    now, after = schedule.sigma(index)
    if now == after:
        return end
    assert schedule.sigmas is not None
    here = solver.log_ratio(now)
    h = here - solver.log_ratio(after)
    (_, noise_now), (alpha, noise_after) = solver.parts(now), solver.parts(after)
    rise, latest = math.expm1(h), pictures[-1]
    made = noise_after / noise_now * begin - alpha * rise * latest
    others = [(solver.log_ratio(float(schedule.sigmas[index - back])) - here) / -h for back in range(1, order)]
    differences = [(pictures[-1 - back] - latest) / ratio for back, ratio in enumerate(others, 1)]
    if ahead is not None:
        others, differences = [*others, 1.0], [*differences, ahead - latest]
    if differences:
        scale = h if kind == "bh1" else rise
        for weight, difference in zip(_weights(others, h, scale), differences, strict=True):
            made = made - alpha * scale * weight * difference
    return made


def _weights(ratios: list[float], h: float, scale: float) -> list[float]:
    """The weights of differences at `ratios` of a step, which make the step exact to their number of orders."""
    if len(ratios) == 1:
        return [0.5]  # as the authors have it in place of the solution, which has the same order
    terms, value, factorial = [], math.expm1(h) / h - 1, 1
    for power in range(1, len(ratios) + 1):
        terms.append(value * factorial / scale)
        factorial *= power + 1
        value = value / h - 1 / factorial
    solution = np.linalg.solve(np.array([[ratio**power for ratio in ratios] for power in range(len(ratios))]), terms)
    return [float(weight) for weight in solution]
