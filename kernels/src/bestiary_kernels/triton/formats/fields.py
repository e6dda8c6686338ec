# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Taking words apart: what the decoders of several formats have in common."""

import torch
import triton
import triton.language as tl


@triton.jit
def half(word):
    """The low 16 bits of a word as the float16 that they are, in float32."""
    return (word & 0xFFFF).to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def signed(byte):
    """The low 8 bits of a word as the int8 that they are, in float32."""
    return (byte & 255).to(tl.uint8).to(tl.int8, bitcast=True).to(tl.float32)


@triton.jit
def two(word):
    """The bytes of 16-bit words [...] as [..., 2], each in a word of its own: both stay with the thread that has it."""
    return tl.join(word & 255, (word >> 8) & 255)


@triton.jit
def four(word):
    """The bytes of 32-bit words [...] as [..., 2, 2], each in a word of its own."""
    even = tl.join(word & 255, (word >> 16) & 255)
    odd = tl.join((word >> 8) & 255, word >> 24)
    return tl.join(even, odd)


@triton.jit
def blocks(rows, inside, first, WORDS: tl.constexpr, LENGTH: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    """Where each block begins, [BN, SPAN / LENGTH] in words, and whether it is there."""
    unit = first // LENGTH + tl.arange(0, SPAN // LENGTH)
    held = inside[:, None] & (unit < COLUMNS // LENGTH)[None, :]
    return rows[:, None] * (COLUMNS // LENGTH * WORDS) + unit[None, :] * WORDS, held


def split_rows(codes: torch.Tensor, size: int) -> torch.Tensor:
    """Rows of bytes [..., n size] as blocks [..., n, size]."""
    return codes.reshape(*codes.shape[:-1], -1, size)


def halves(part: torch.Tensor) -> torch.Tensor:
    """Bytes [..., 2 n] of float16 as numbers [..., n] in float32."""
    # Fields of a block are rarely aligned: only memory of their own can be viewed as wider numbers.
    return part.clone(memory_format=torch.contiguous_format).view(torch.float16).float()


def nibbles(part: torch.Tensor, run: int) -> torch.Tensor:
    """Bytes [..., n] as 4-bit numbers [..., 2 n]: of each run of bytes first all low halves, then all high ones."""
    runs = split_rows(part, run)
    return torch.stack((runs & 15, runs >> 4), -2).flatten(-3)
