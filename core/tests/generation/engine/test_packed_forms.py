"""Codes of keys and values in 8 and 4 bits, against their formulas in plain numpy."""

import math

import numpy as np
import pytest
import torch

from bestiary.generation.engine.packed_memory import form_of
from bestiary.nn import AttentionSpec

PACKED = ("fp8", "int8", "int4")
GROUP = {"fp8": 64, "int8": 64, "int4": 32}
E4M3 = np.array(
    [
        (1 + code % 8 / 8) * 2.0 ** (code // 8 - 7) if code >= 8 else code % 8 * 2.0**-9
        for code in range(127)  # 127 is none
    ]
)


def bfloat16(x: np.ndarray) -> np.ndarray:
    """Rounded to the nearest, ties to even."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


class Formula:
    """What a head [..., D] becomes, and by how much it may differ."""

    def __init__(self, kind: str, x: np.ndarray) -> None:
        groups = -(-x.shape[-1] // GROUP[kind])
        size = 2 * -(-x.shape[-1] // (2 * groups))
        wide = np.concatenate((x, np.repeat(x[..., -1:], groups * size - x.shape[-1], -1)), -1)
        parts = wide.astype(np.float32).reshape(*x.shape[:-1], groups, size)
        made, most = getattr(self, "_" + kind)(parts)
        self.value = made.reshape(wide.shape)[..., : x.shape[-1]]
        self.most = np.broadcast_to(most, parts.shape).reshape(wide.shape)[..., : x.shape[-1]] * (1 + 1e-6)

    def _int8(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = bfloat16(np.abs(x).max(-1, keepdims=True) / np.float32(127))
        codes = np.clip(np.rint(x / np.where(scale == 0, 1, scale)), -127, 127)
        return codes.astype(np.float64) * scale, scale / 2

    def _int4(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        least = bfloat16(x.min(-1, keepdims=True))
        scale = bfloat16((x.max(-1, keepdims=True) - least) / np.float32(15))
        codes = np.clip(np.rint((x - least) / np.where(scale == 0, 1, scale)), 0, 15)
        # A least number that was rounded up is all that its own can become.
        return codes.astype(np.float64) * scale + least, np.maximum(scale / 2, np.abs(least) * 2.0**-8)

    def _fp8(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = bfloat16(np.abs(x).max(-1, keepdims=True) / np.float32(448))
        scaled = x / np.where(scale == 0, 1, scale)
        above = np.clip(np.searchsorted(E4M3, np.abs(scaled)), 1, 126)
        low, high = E4M3[above - 1], E4M3[above]
        middle = (low + high) / 2
        up = (np.abs(scaled) > middle) | ((np.abs(scaled) == middle) & (above % 2 == 0))
        codes = np.copysign(np.where(up, high, low), scaled)
        # Half a step of three bits of mantissa, or of the smallest numbers.
        return codes * scale, np.maximum(np.abs(x) * 2.0**-4, scale * 2.0**-10)


SHAPES = [(2, 64), (1, 576), (3, 80), (4, 8), (2, 33), (1, 9)]


def heads(count: int, shape: tuple[int, int]) -> torch.Tensor:
    """Of many sizes, some with a channel that dominates, some off centre, and one of zeros."""
    source = torch.Generator().manual_seed(count + shape[1])
    x = torch.randn(count, *shape, generator=source) * torch.logspace(-6, 4, count)[:, None, None]
    x[::3, :, 1] *= 50
    x[1::3] += 3 * x[1::3].abs().amax((1, 2), keepdim=True)
    x[2] = 0
    x[3] = 0.1
    return x


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", PACKED)
def test_codes_are_those_of_the_formula_and_within_its_bound(kind: str, shape: tuple[int, int]) -> None:
    form = form_of(kind, AttentionSpec(shape[0], *shape, 1.0), torch.bfloat16)
    x = heads(40, shape)
    parts = form.encode(x)
    assert [(part.shape[1], part.dtype) for part in parts] == list(form.columns)
    found, formula = form.decode(parts, torch.float64).numpy(), Formula(kind, x.numpy())
    assert np.array_equal(found, formula.value)
    assert (np.abs(found - x.numpy()) <= formula.most).all() and not np.array_equal(found, x.numpy())
    short = form.decode(parts, torch.bfloat16).double().numpy()
    assert np.allclose(short, found, rtol=2**-7, atol=2**-7 * np.abs(x.numpy()).max((1, 2), keepdims=True))
    plain = form_of("auto", AttentionSpec(shape[0], *shape, 1.0), torch.float32)
    assert torch.equal(plain.decode(plain.encode(x), torch.float32), x)


@pytest.mark.parametrize("kind", PACKED)
def test_a_token_is_the_same_bits_in_any_company(kind: str) -> None:
    form = form_of(kind, AttentionSpec(2, 2, 80, 1.0), torch.float32)
    x = heads(40, (2, 80))
    whole = form.encode(x)
    for first, last in ((0, 1), (1, 8), (8, 25), (25, 40)):
        assert all(torch.equal(a[first:last], b) for a, b in zip(whole, form.encode(x[first:last]), strict=True))
        rows = [part[first:last] for part in whole]
        assert torch.equal(form.decode(whole, torch.float32)[first:last], form.decode(rows, torch.float32))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", PACKED)
def test_what_is_no_number_spoils_its_own_group_alone(kind: str, value: float) -> None:
    form = form_of(kind, AttentionSpec(2, 2, 64, 1.0), torch.float32)
    x = heads(40, (2, 64))
    spoilt = x.clone()
    spoilt[7, 1, 5] = value
    found = form.decode(form.encode(spoilt), torch.float32)
    assert not torch.isfinite(found[7, 1, : GROUP[kind]]).any()
    found[7, 1, : GROUP[kind]] = form.decode(form.encode(x), torch.float32)[7, 1, : GROUP[kind]]
    assert torch.equal(found, form.decode(form.encode(x), torch.float32))
