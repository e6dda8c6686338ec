"""Searches for the scales that leave the least weighted error, all groups at once.

The methods are those of ggml-quants.c (https://github.com/ggml-org/ggml), each named where it is; the searches return
scales, and the caller rounds to the nearest codes of the scales as they are stored.  Groups are columns [group, ...],
weights have their shape, and results have one number for each column.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bestiary_quant.making.columns import codes, divided, peak, total

_ZERO = 1e-15
"""A group of which no number is farther from zero counts as zeros (GROUP_MAX_EPS)."""
_NOISE = 1e-6
"""A determinant this much smaller than its terms is only their rounding."""


@dataclass(frozen=True)
class Steps:
    """Scales to try: those that stretch a group over `levels + first + step * n` codes, for n up to `count`."""

    first: float
    step: float
    count: int


def symmetric(x: torch.Tensor, weights: torch.Tensor, levels: int) -> torch.Tensor:
    """The scale for codes in [-levels, levels - 1] (make_qx_quants).

    The number farthest from zero gets a code near -levels, so that the one code without an opposite is used.
    """
    top = peak(x)
    top = torch.where(top.abs() < _ZERO, torch.inf, top)
    weighted = weights * x
    code, scratch = torch.empty_like(x), torch.empty_like(x)
    scale, best = torch.zeros_like(top), torch.zeros_like(top)
    for step in (0, *range(-9, 0), *range(1, 10)):
        torch.mul(x, -(levels + 0.1 * step) / top, out=code).round_().clamp_(-levels, levels - 1)
        products = total(torch.mul(weighted, code, out=scratch))
        squares = total(torch.mul(weights, code, out=scratch).mul_(code))
        new = products / squares
        gain = new * products  # how much less the error is than that of zeros; NaN where all codes are zero
        scale, best = torch.where(gain > best, new, scale), torch.where(gain > best, gain, best)
    return scale


def refined(x: torch.Tensor, levels: int) -> torch.Tensor:
    """The scale for codes in [-levels, levels - 1], moving code after code (make_q3_quants); weights are squares."""
    top = peak(x)
    weights = x * x
    code = divided(-levels * x, torch.where(top.abs() < _ZERO, torch.inf, top)).round_().clamp_(-levels, levels - 1)
    return _moved(x, weights, code, -levels, levels - 1)


def ranged(
    x: torch.Tensor, weights: torch.Tensor, levels: int, steps: Steps, absolute: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale s and minimum m >= 0 for x = s q - m, codes in [0, levels] (make_qkx2_quants and make_qkx3_quants).

    `absolute` measures errors by their size and not by their square.
    """
    high, minimum = x.amax(0), x.amin(0).clamp_(max=0)
    flat = high <= minimum
    high = torch.where(flat, minimum + 1, high)
    # Numbers and codes are counted from the weighted mean: where one weight is a million times the others, the errors
    # of these would otherwise be lost in the rounding of its sums.
    weight = total(weights.clone())
    mean = divided(total(weights * x), weight)
    z = x - mean
    sum_z, sum_zz = total(weights * z), total(weights * z * z)
    code, scratch, spare = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)

    def coded(minimum: torch.Tensor, reach: float) -> tuple[torch.Tensor, ...]:
        """The code of the mean; then, of all codes less this one, the weighted sums with 1, themselves and z."""
        inverse = reach / (high - minimum)
        middle = ((mean - minimum) * inverse).round_().clamp_(0, levels)
        torch.sub(x, minimum, out=code).mul_(inverse).round_().clamp_(0, levels).sub_(middle)
        torch.mul(weights, code, out=scratch)
        squares = total(torch.mul(scratch, code, out=spare))
        products = total(torch.mul(scratch, z, out=spare))
        return middle, total(scratch), squares, products

    def error(scale: torch.Tensor, minimum: torch.Tensor, sums: tuple[torch.Tensor, ...]) -> torch.Tensor:
        middle, sum_l, sum_ll, sum_lz = sums
        shift = minimum + scale * middle - mean
        if absolute:
            return total(torch.mul(code, scale, out=spare).add_(shift).sub_(z).abs_().mul_(weights))
        squares = sum_zz + scale * scale * sum_ll + shift * shift * weight
        return squares + 2 * (scale * shift * sum_l - scale * sum_lz - shift * sum_z)

    scale = (high - minimum) / levels
    best = error(scale, minimum, coded(minimum, levels))
    for number in range(steps.count + 1):
        sums = coded(minimum, levels + steps.first + steps.step * number)
        middle, sum_l, sum_ll, sum_lz = sums
        determinant = weight * sum_ll - sum_l * sum_l
        new_scale = (weight * sum_lz - sum_l * sum_z) / determinant
        new_minimum = (sum_ll * sum_z - sum_l * sum_lz) / determinant + mean - new_scale * middle
        through_zero = sum_lz + middle * sum_z + mean * (sum_l + middle * weight)
        through_zero /= sum_ll + middle * (2 * sum_l + middle * weight)
        new_scale = torch.where(new_minimum > 0, through_zero, new_scale)
        new_minimum = new_minimum.clamp_(max=0)
        new = error(new_scale, new_minimum, sums)
        better = (determinant > _NOISE * weight * sum_ll) & (new < best)
        best, scale = torch.where(better, new, best), torch.where(better, new_scale, scale)
        minimum = torch.where(better, new_minimum, minimum)
    return torch.where(flat, 0.0, scale), -minimum


def positive(x: torch.Tensor, weights: torch.Tensor, levels: int) -> torch.Tensor:
    """The scale for codes in [0, levels] of numbers that are not negative (make_qp_quants)."""
    top = x.amax(0)
    top = torch.where(top < _ZERO, torch.inf, top)
    step, best = torch.zeros_like(top), torch.full_like(top, torch.inf)
    for number in (0, -4, -3, -2, -1, 1, 2, 3, 4):
        new_step = divided(top, torch.full_like(top, levels + 0.1 * number))
        error = total((codes(x, new_step, 0, levels) * new_step - x).square_().mul_(weights))
        better = error < best
        step, best = torch.where(better, new_step, step), torch.where(better, error, best)
    return _moved(x, weights, codes(x, step, 0, levels), 0, levels)


def _moved(x: torch.Tensor, weights: torch.Tensor, code: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """The best scale once no code gains by moving alone, in at most five rounds; `code` is overwritten."""
    weighted = weights * x
    products, squares = total(weighted * code), total(weights * code * code)
    for _ in range(5):
        moved = torch.zeros_like(products, dtype=torch.bool)
        for place in range(len(x)):
            old = code[place]
            others, other_squares = products - weighted[place] * old, squares - weights[place] * old * old
            new = (x[place] * other_squares / others).round_().clamp_(low, high)
            new_products, new_squares = others + weighted[place] * new, other_squares + weights[place] * new * new
            better = (others > 0) & (new_products * (new_products / new_squares) > products * (products / squares))
            code[place] = torch.where(better, new, old)
            products = torch.where(better, new_products, products)
            squares = torch.where(better, new_squares, squares)
            moved |= better
        if not bool(moved.any()):
            break
    return divided(products, squares)
