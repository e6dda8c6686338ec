"""Turned queries and keys are the core's, and every key and value is in its slot and nowhere else."""

from __future__ import annotations

import pytest
import torch

from bestiary.nn.rope import Rotation

pytest.importorskip("triton", reason="the kernels for GPUs need triton, an optional extra")

from bestiary_kernels.triton.rope_cache import rope_and_write, rope_and_write_reference

TOLERANCES = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""A few of the last bits of a number.  Triton's interpreter cuts float32 off to bfloat16, where a GPU rounds it."""


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("part", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_rope_and_write(dtype: torch.dtype, part: float, interleaved: bool, large: bool, device: str) -> None:
    tokens, heads, kv_heads, width = (700, 32, 8, 128) if large else (3, 6, 2, 24)
    pairs, value_width = int(width * part) // 2, width - 4
    q = torch.randn(tokens, heads, width, device=device).to(dtype)
    k = torch.randn(tokens, kv_heads, width, device=device).to(dtype)
    v = torch.randn(tokens, kv_heads, value_width, device=device).to(dtype)
    angles = torch.randn(tokens, pairs, device=device)
    slots = torch.randperm(2 * tokens, device=device)[:tokens]
    slots[1] = -1
    rotation = Rotation.of(angles.cos(), angles.sin(), interleaved)
    due_keys = torch.full((2 * tokens, kv_heads * width), 7.0, device=device)
    due_values = torch.full((2 * tokens, kv_heads * value_width), 7.0, device=device)
    written = slots >= 0
    due_keys[slots[written]] = rotation.apply(k.float()).flatten(1)[written]
    due_values[slots[written]] = v.float().flatten(1)[written]
    close = {"rtol": TOLERANCES[dtype], "atol": TOLERANCES[dtype]}
    for function in (rope_and_write, rope_and_write_reference):
        keys = torch.full_like(due_keys, 7.0, dtype=dtype)
        values = torch.full_like(due_values, 7.0, dtype=dtype)
        turned = function(q, k, v, angles.cos(), angles.sin(), keys, values, slots, interleaved)
        torch.testing.assert_close(turned.float(), rotation.apply(q.float()), **close)
        torch.testing.assert_close(keys.float(), due_keys, **close)
        assert torch.equal(values.float(), due_values)


def test_cache_of_another_type_and_stride(device: str) -> None:
    q, k, v = (torch.randn(2, heads, 16, device=device) for heads in (2, 1, 1))
    angles, slots = torch.randn(2, 8, device=device), torch.tensor([2, 0], device=device)
    both = torch.zeros(3, 32, dtype=torch.float16, device=device)
    rope_and_write(q, k, v, angles.cos(), angles.sin(), both[:, :16], both[:, 16:], slots)
    turned = Rotation.of(angles.cos(), angles.sin(), False).apply(k)
    torch.testing.assert_close(both[slots], torch.cat((turned, v), -1)[:, 0].half(), rtol=1e-3, atol=1e-3)
    assert not both[1].any()


def test_misfits_are_refused(device: str) -> None:
    q, k = torch.randn(2, 4, 16, device=device), torch.randn(2, 2, 16, device=device)
    angles, slots = torch.randn(2, 8, device=device), torch.tensor([0, 1], device=device)
    keys = torch.zeros(4, 32, device=device)
    with pytest.raises(ValueError, match="the same tokens"):
        rope_and_write(q, k, k[:1], angles, angles, keys, keys, slots)
    with pytest.raises(ValueError, match="angles"):
        rope_and_write(q, k, k, angles[:, :4], angles, keys, keys, slots)
    with pytest.raises(ValueError, match="rows of 16"):
        rope_and_write(q, k, k, angles, angles, keys[:, :16], keys, slots)
