"""Attention over a paged cache is what the core's reference says of each sequence by itself, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from bestiary.nn.attend import attend
from bestiary.nn.batch import AttentionSpec

pytest.importorskip("triton", reason="the kernels for GPUs need triton, an optional extra")

from bestiary_kernels.triton.attention_decode import decode_attention, decode_attention_reference
from bestiary_kernels.triton.attention_prefill import prefill_attention, prefill_attention_reference

SIZE = 16
ERRORS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Of a result as a whole.  Triton's interpreter cuts float32 off to bfloat16, where a GPU rounds it."""
SHAPES = [(6, 2, 24, 24), (4, 4, 16, 8), (16, 1, 40, 40), (3, 1, 64, 64)]
"""Heads, key heads, and the widths of keys and values."""
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 40},
    "softcap": {"softcap": 2.0},
    "sinks": {"sinks": True},
    "all": {"window": 300, "softcap": 3.0, "sinks": True},
}

# Each shape and each option once, and the others that are thorough.
_ONCE = [*((shape, "all") for shape in SHAPES), *((SHAPES[0], name) for name in OPTIONS if name != "all")]
CASES: list[Any] = _ONCE + [
    pytest.param(shape, name, marks=pytest.mark.thorough)
    for shape in SHAPES
    for name in OPTIONS
    if (shape, name) not in _ONCE
]


@dataclass(frozen=True)
class Cache:
    """Sequences in blocks that are strewn about; whatever no sequence has, and what lies behind a window, is NaN."""

    keys: torch.Tensor
    values: torch.Tensor
    tables: torch.Tensor
    sequences: list[tuple[torch.Tensor, torch.Tensor]]
    """Keys [length, KH, D] and values [length, KH, DV] of each."""

    @classmethod
    def of(
        cls,
        lengths: list[int],
        news: list[int],
        kv_heads: int,
        width: int,
        value_width: int,
        window: int | None,
        dtype: torch.dtype,
        device: str,
    ) -> Cache:
        blocks = [-(-length // SIZE) for length in lengths]
        order = (torch.randperm(sum(blocks)) + 1).split(blocks)
        count = sum(blocks) + 1
        keys = torch.full((count * SIZE, kv_heads, width), float("nan"), dtype=dtype, device=device)
        values = torch.full((count * SIZE, kv_heads, value_width), float("nan"), dtype=dtype, device=device)
        tables = torch.zeros(len(lengths), max(blocks), dtype=torch.int32, device=device)  # block 0 is nobody's
        sequences = []
        for number, (length, new) in enumerate(zip(lengths, news, strict=True)):
            k = torch.randn(length, kv_heads, width, device=device).to(dtype)
            v = torch.randn(length, kv_heads, value_width, device=device).to(dtype)
            sequences.append((k, v))
            gone = 0 if window is None else max(0, length - new - window + 1) // SIZE
            for place, block in enumerate(order[number].tolist()):
                if place >= gone:
                    tables[number, place] = block
                    part = slice(place * SIZE, min(place * SIZE + SIZE, length))
                    rows = slice(block * SIZE, block * SIZE + part.stop - part.start)
                    keys[rows], values[rows] = k[part], v[part]
        return cls(keys.flatten(1), values.flatten(1), tables, sequences)

    def expected(self, parts: list[torch.Tensor], told: dict[str, Any]) -> torch.Tensor:
        """For the last queries [C, H, D] of each sequence."""
        made = []
        for q, (k, v) in zip(parts, self.sequences, strict=True):
            spec = AttentionSpec(q.shape[1], k.shape[1], q.shape[2], told["scale"], told["window"], told["softcap"])
            sinks = None if told["sinks"] is None else told["sinks"].double()
            if v.shape[2] < k.shape[2]:
                # The reference has values as wide as the keys.
                v = torch.nn.functional.pad(v, (0, k.shape[2] - v.shape[2]))
            y = attend(*(x.double().transpose(0, 1) for x in (q, k, v)), spec, sinks)
            made.append(y.transpose(0, 1))
        return torch.cat(made)[..., : self.values.shape[1] // self.sequences[0][0].shape[1]]


def options(name: str, heads: int, device: str) -> dict[str, Any]:
    told = {"window": None, "softcap": None, "sinks": None, **OPTIONS[name]}
    sinks = torch.randn(heads, device=device) if told["sinks"] else None
    return {**told, "sinks": sinks, "size": SIZE, "scale": 0.3}


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs).norm() / theirs.norm())


@pytest.mark.parametrize(("shape", "name"), CASES)
def test_decode(shape: tuple[int, int, int, int], name: str, large: bool, device: str) -> None:
    heads, kv_heads, width, value_width = (4 * side for side in shape) if large else shape
    lengths = [1, 4096, 77, 3000] if large else [1, 300, 33]
    told = options(name, heads, device)
    cache = Cache.of(lengths, [1] * len(lengths), kv_heads, width, value_width, told["window"], torch.float32, device)
    q = torch.randn(len(lengths), heads, width, device=device)
    paged = q, cache.keys, cache.values, cache.tables, torch.tensor(lengths, device=device)
    due = cache.expected(list(q[:, None]), told)
    assert error(decode_attention(*paged, **told), due) < ERRORS[torch.float32]
    assert error(decode_attention_reference(*paged, **told), due) < ERRORS[torch.float32]


@pytest.mark.parametrize(("shape", "name"), CASES)
def test_prefill(shape: tuple[int, int, int, int], name: str, large: bool, device: str) -> None:
    heads, kv_heads, width, value_width = (4 * side for side in shape) if large else shape
    lengths, counts = ([1, 4096, 77, 3000], [1, 2048, 77, 1]) if large else ([1, 310, 33, 20], [1, 37, 33, 1])
    told = options(name, heads, device)
    cache = Cache.of(lengths, counts, kv_heads, width, value_width, told["window"], torch.float32, device)
    q = torch.randn(sum(counts), heads, width, device=device)
    batch = torch.tensor([counts, lengths], device=device)
    starts = batch[0].cumsum(0) - batch[0]
    paged = q, cache.keys, cache.values, cache.tables, starts, *batch
    due = cache.expected(list(q.split(counts)), told)
    y = prefill_attention(*paged, longest=max(counts), **told)
    assert error(y, due) < ERRORS[torch.float32]
    assert error(prefill_attention_reference(*paged, **told), due) < ERRORS[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_of_16_bits(dtype: torch.dtype, device: str) -> None:
    lengths, counts = [70, 20], [9, 1]
    told = options("all", 8, device)
    cache = Cache.of(lengths, counts, 2, 32, 32, told["window"], dtype, device)
    q = torch.randn(10, 8, 32, device=device).to(dtype)
    batch = torch.tensor([counts, lengths], device=device)
    y = prefill_attention(
        q, cache.keys, cache.values, cache.tables, torch.tensor([0, 9], device=device), *batch, **told
    )
    due = cache.expected(list(q.split(counts)), told)
    assert y.dtype == dtype and error(y, due) < ERRORS[dtype]
    last = q[[8, 9]]
    y = decode_attention(last, cache.keys, cache.values, cache.tables, batch[1], **told)
    assert y.dtype == dtype and error(y, due[[8, 9]]) < ERRORS[dtype]


def test_prefill_is_decoding_step_by_step(device: str) -> None:
    told = options("all", 4, device)
    cache = Cache.of([40], [8], 2, 16, 16, None, torch.float32, device)
    q = torch.randn(8, 4, 16, device=device)
    whole = torch.tensor([0], device=device), torch.tensor([8], device=device), torch.tensor([40], device=device)
    at_once = prefill_attention(q, cache.keys, cache.values, cache.tables, *whole, **told)
    # All steps at once, each a sequence of its own with the same blocks.
    tables, lengths = cache.tables.expand(8, -1), torch.arange(33, 41, device=device)
    steps = decode_attention(q, cache.keys, cache.values, tables, lengths, **told)
    torch.testing.assert_close(at_once, steps, rtol=1e-5, atol=1e-6)


def test_a_sequence_alone_is_what_it_is_in_a_batch(device: str) -> None:
    told = options("sinks", 4, device)
    lengths = [600, 5, 260]
    cache = Cache.of(lengths, [1] * 3, 2, 16, 16, None, torch.float32, device)
    q, seen = torch.randn(3, 4, 16, device=device), torch.tensor(lengths, device=device)
    together = decode_attention(q, cache.keys, cache.values, cache.tables, seen, **told)
    for row in range(3):
        one, blocks = slice(row, row + 1), -(-lengths[row] // SIZE)
        alone = decode_attention(q[one], cache.keys, cache.values, cache.tables[one, :blocks], seen[one], **told)
        assert torch.equal(alone, together[one])


def test_values_may_be_the_first_columns_of_the_keys(device: str) -> None:
    told = options("plain", 6, device)
    cache = Cache.of([90], [1], 1, 24, 24, None, torch.float32, device)
    latent = cache.keys[:, :16]
    q, length = torch.randn(1, 6, 24, device=device), torch.tensor([90], device=device)
    y = decode_attention(q, cache.keys, latent, cache.tables, length, **told)
    same = decode_attention(q, cache.keys, latent.contiguous(), cache.tables, length, **told)
    assert y.shape == (1, 6, 16) and torch.equal(y, same)


def test_a_row_of_no_sequence_is_zeros(device: str) -> None:
    told = options("plain", 4, device)
    cache = Cache.of([20], [1], 2, 16, 16, None, torch.float32, device)
    y = decode_attention(
        torch.randn(2, 4, 16, device=device),
        cache.keys,
        cache.values,
        cache.tables.expand(2, -1),
        torch.tensor([20, 0], device=device),
        **told,
    )
    assert y[0].any() and not y[1].any()


def test_misfits_are_refused(device: str) -> None:
    told = options("plain", 4, device)
    cache = Cache.of([20], [1], 2, 16, 16, None, torch.float32, device)
    q, length = torch.randn(1, 4, 16, device=device), torch.tensor([20], device=device)
    with pytest.raises(ValueError, match="does not fit 3 heads"):
        decode_attention(q[:, :3], cache.keys, cache.values, cache.tables, length, **told)
    with pytest.raises(ValueError, match="does not fit its tables"):
        decode_attention(q.repeat(2, 1, 1), cache.keys, cache.values, cache.tables, length, **told)
    with pytest.raises(ValueError, match="contiguous"):
        decode_attention(q, cache.keys.T.contiguous().T, cache.values, cache.tables, length, **told)
    with pytest.raises(ValueError, match="not as many starts"):
        prefill_attention(q, cache.keys, cache.values, cache.tables, length, length, length[:0], **told)
