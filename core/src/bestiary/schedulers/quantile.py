"""The quantile function of the Beta distribution."""

from __future__ import annotations

import math

import numpy as np

from bestiary.schedulers.scheduler import Numbers

_TINY = 1e-300


def beta_quantile(probabilities: Numbers, a: float, b: float) -> Numbers:
    """x [N] in 0..1 below which a Beta(a, b) number lies with the probabilities [N] in 0..1; exact to about 1e-14."""
    low, high = np.zeros_like(probabilities), np.ones_like(probabilities)
    for _ in range(60):  # each halves the interval
        middle = (low + high) / 2
        below = beta_distribution(middle, a, b) < probabilities
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    middle = (low + high) / 2
    return np.where(probabilities <= 0, 0.0, np.where(probabilities >= 1, 1.0, middle))


def beta_distribution(x: Numbers, a: float, b: float) -> Numbers:
    """The regularised incomplete beta function I_x(a, b) of x [N] in 0..1.

    The continued fraction of DLMF 8.17.22, by Lentz's method; beyond the mean its mirror image converges faster.
    """
    mirrored = x > (a + 1) / (a + b + 2)
    y, p, q = np.where(mirrored, 1 - x, x), np.where(mirrored, b, a), np.where(mirrored, a, b)
    constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    safe = np.clip(y, _TINY, None)
    front = np.exp(constant + p * np.log(safe) + q * np.log1p(-y.clip(None, 1 - 1e-16))) / p
    value = np.where(y > 0, front / _fraction(y, p, q), 0.0)
    return np.where(mirrored, 1 - value, value)


def _fraction(y: Numbers, p: Numbers, q: Numbers) -> Numbers:
    value = np.ones_like(y)
    c, d = np.ones_like(y), np.zeros_like(y)
    for step in range(1, 200):
        m = step // 2
        if step % 2:
            term = -(p + m) * (p + q + m) * y / ((p + 2 * m) * (p + 2 * m + 1))
        else:
            term = m * (q - m) * y / ((p + 2 * m - 1) * (p + 2 * m))
        d = 1 / _away_from_zero(1 + term * d)
        c = _away_from_zero(1 + term / c)
        value = value * c * d
        if np.abs(c * d - 1).max() < 1e-15:
            break
    return value


def _away_from_zero(values: Numbers) -> Numbers:
    return np.where(np.abs(values) < _TINY, _TINY, values)
