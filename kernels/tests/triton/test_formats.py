"""What a kernel reads out of a weight's bytes is exactly what gguf's NumPy code and torch's own types say."""

from __future__ import annotations

from typing import Any

import gguf
import numpy
import pytest
import torch

pytest.importorskip("triton", reason="the kernels for GPUs need triton, an optional extra")

import triton
import triton.language as tl

from bestiary_kernels.triton.formats.table import FORMATS
from bestiary_kernels.triton.launch import power_of_two
from bestiary_kernels.triton.weight import Weight

GGUF = ("Q4_0", "Q8_0", "MXFP4", "Q4_K", "Q5_K", "Q6_K")
EXTREME = (0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF)
"""Of float16: zeros, the smallest and largest numbers below the normal ones, one, and the largest, of both signs."""


def with_extreme_scales(name: str, held: Weight) -> Weight:
    """The same weight whose first blocks have scales at the ends of what they may be."""
    kind = FORMATS[name]
    blocks = held.codes.view(-1, kind.size)
    if name == "MXFP4":
        blocks[:, 0] = torch.arange(len(blocks)) % 256
    extreme = torch.from_numpy(numpy.array(EXTREME, dtype=numpy.uint16).view(numpy.uint8).reshape(-1, 2))
    for number, place in enumerate({"Q6_K": (208,), "Q4_K": (0, 2), "Q5_K": (0, 2), "MXFP4": ()}.get(name, (0,))):
        blocks[: len(EXTREME), place : place + 2] = extreme.roll(number, 0).to(blocks.device)
    return held


def expected(held: Weight) -> torch.Tensor:
    codes = held.codes.cpu()
    if held.format in GGUF:
        with numpy.errstate(all="ignore"):
            values = gguf.quants.dequantize(codes.numpy(), gguf.GGMLQuantizationType[held.format])
        return torch.from_numpy(values)
    if held.format == "plain":
        return codes.float()
    assert held.scales is not None
    scales = held.scales.float().cpu()
    if held.format == "float8":
        rows, columns = torch.arange(codes.shape[0]) // 128, torch.arange(codes.shape[1]) // 128
        return codes.float() * scales[rows][:, columns]
    column = torch.arange(held.shape[1])
    group = column // (held.shape[1] // scales.shape[1])
    if held.format == "float8_rows":
        return codes.float() * scales[:, group]
    assert held.addends is not None
    q = (codes[:, column // 2] >> (4 * (column % 2))) & 15
    return q * scales[:, group] + held.addends.float().cpu()[:, group]


@triton.jit
def decoded(
    codes,
    scales,
    addends,
    y,
    count,
    GROUP: tl.constexpr,
    COLUMNS: tl.constexpr,
    DECODE: tl.constexpr,
    BN: tl.constexpr,
    SPAN: tl.constexpr,
):
    row = tl.arange(0, BN)
    for first in range(0, COLUMNS, SPAN):
        numbers = DECODE(codes, scales, addends, row.to(tl.int64), row < count, first, GROUP, COLUMNS, SPAN)
        column = first + tl.arange(0, SPAN)
        width = tl.cdiv(COLUMNS, SPAN) * SPAN
        tl.store(y + row[:, None] * width + column[None, :], numbers)


def by_kernel(held: Weight, span: int) -> torch.Tensor:
    """All that the decoder says, of rows and columns too that are not there."""
    rows, columns = held.shape
    padded = power_of_two(rows)
    y = torch.full((padded, -(-columns // span) * span), -1.0, device=held.codes.device)
    with numpy.errstate(over="ignore"):  # of the interpreter, where the largest scale makes infinities
        decoded[(1,)](
            *held.pointers(),
            y,
            rows,
            GROUP=held.group,
            COLUMNS=columns,
            DECODE=held.kind.decode,
            BN=padded,
            SPAN=span,
            enable_fp_fusion=False,
        )
    return y


@pytest.mark.parametrize("name", FORMATS)
def test_plain_torch(name: str, make_weight: Any) -> None:
    held = make_weight(name, (12,), 768)
    if name in GGUF:
        held = with_extreme_scales(name, held)
    assert torch.equal(held.dequantize().cpu(), expected(held))


@pytest.mark.parametrize("name", FORMATS)
def test_kernel(name: str, make_weight: Any) -> None:
    held = make_weight(name, (12,), 768)
    if name in GGUF:
        held = with_extreme_scales(name, held)
    for span in {FORMATS[name].span, 256, 512}:
        y = by_kernel(held, span)
        assert torch.equal(y[:12, :768].cpu(), expected(held))
        assert not y[12:].any() and not y[:, 768:].any()


@pytest.mark.parametrize("name", ["plain", "float8", "float8_rows"])
def test_any_number_of_rows_and_columns(name: str, make_weight: Any) -> None:
    held = make_weight(name, (131,), 140)
    y = by_kernel(held, 256)
    assert torch.equal(y[:131, :140].cpu(), expected(held))
    assert not y[131:].any() and not y[:, 140:].any()


def test_every_float8(device: str) -> None:
    codes = torch.arange(256, dtype=torch.uint8, device=device).view(1, 256)
    y = by_kernel(Weight("float8", codes, torch.ones(1, 2, device=device)), 256)
    torch.testing.assert_close(y.cpu(), codes.cpu().view(torch.float8_e4m3fn).float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("group", [32, 64, 128, 768])
def test_groups_of_four_bit_codes(group: int, make_weight: Any) -> None:
    held = make_weight("int4", (5,), 768)
    scales = torch.randn(5, 768 // group).to(held.codes.device)
    grouped = Weight("int4", held.codes, scales, -scales * 8)
    assert torch.equal(by_kernel(grouped, 256)[:5].cpu(), expected(grouped))


def test_misfits_are_refused(make_weight: Any) -> None:
    codes = make_weight("Q8_0", (4,), 64).codes
    with pytest.raises(ValueError, match="unknown"):
        Weight("Q9_0", codes)
    with pytest.raises(ValueError, match="blocks of 34"):
        Weight("Q8_0", codes[:, :-1].contiguous())
    with pytest.raises(ValueError, match="contiguous"):
        Weight("Q8_0", codes[:, :34])
    with pytest.raises(ValueError, match="multiple of 2 bytes"):
        Weight("Q8_0", codes.flatten()[1:35].view(1, 34))
    with pytest.raises(ValueError, match=r"are torch\.uint8"):
        Weight("Q8_0", codes.view(torch.int8))
    with pytest.raises(ValueError, match=r"Scales \[1, 2\]"):
        Weight("float8", torch.zeros(4, 200, dtype=torch.uint8, device=codes.device))
    with pytest.raises(ValueError, match="same shape"):
        Weight("int4", codes)
    with pytest.raises(ValueError, match="group of columns"):
        Weight("int4", codes, torch.zeros(4, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="group of columns"):
        Weight("float8_rows", codes)
