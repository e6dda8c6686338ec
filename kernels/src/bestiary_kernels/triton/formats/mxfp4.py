# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""MXFP4 of GGUF: blocks of 32 numbers in 17 bytes (`block_mxfp4` of ggml-common.h; OCP Microscaling Formats 1.0).

    e       1 byte    E8M0, a power of two
    f       16 bytes  E2M1; byte i has number i in its low half, number i + 16 in its high one
    x = 2^(e - 127) f

As in ggml the numbers are doubled and the scales halved, so that all are float32 numbers.
"""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.formats.fields import blocks, nibbles, split_rows


@triton.jit
def doubled(code):
    """Twice an E2M1 number (sign, two bits of exponent, one of mantissa) in float32.

    Moved up to where float16 has its exponent and mantissa it is the number over 2^14, subnormal ones too.
    """
    code = code.to(tl.uint16)
    return (((code & 7) << 9) | ((code & 8) << 12)).to(tl.float16, bitcast=True).to(tl.float32) * 32768.0


@triton.jit
def halved(code):
    """2^(code - 128), half an E8M0 number, in float32, which has no 2^128; the first two are subnormal."""
    code = code.to(tl.uint32)
    return tl.where(code < 2, 0x00200000 << code, (code - 1) << 23).to(tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def decode(codes, scales, addends, rows, inside, first, GROUP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    # An odd number of bytes: no wider words are aligned.
    start, held = blocks(rows, inside, first, 17, 32, COLUMNS, SPAN)
    scale = halved(tl.load(codes + start, mask=held, other=0))
    at = start[:, :, None] + 1 + tl.arange(0, 16)[None, None, :]
    q = tl.load(codes + at, mask=held[:, :, None], other=0)
    # [BN, U, 16 bytes, 2 halves of a byte], of which the halves are to come before the bytes
    ordered = tl.permute(tl.join(doubled(q & 15), doubled(q >> 4)), (0, 1, 3, 2))
    unscaled = tl.reshape(ordered, (rows.shape[0], SPAN // 32, 32))
    return tl.reshape(unscaled * scale[:, :, None], (rows.shape[0], SPAN))


def numbers(codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None) -> torch.Tensor:
    block = split_rows(codes, 17)
    exponent = block[..., :1].int()
    scale = torch.where(exponent < 2, 0x00200000 << exponent, (exponent - 1) << 23).view(torch.float32)
    code = nibbles(block[..., 1:], 16).int()
    number = ((code & 7) << 9 | (code & 8) << 12).to(torch.int16).view(torch.float16).float() * 32768.0
    return (number * scale).flatten(-2)
