# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Q4_0 of GGUF: blocks of 32 numbers in 18 bytes (`block_q4_0` of ggml-common.h).

d       2 bytes   float16
q       16 bytes  byte i has number i in its low half, number i + 16 in its high one
x = d (q - 8)
"""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.formats.fields import blocks, half, halves, nibbles, split_rows, two


@triton.jit
def decode(codes, scales, addends, rows, inside, first, GROUP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    # An even number of bytes: the widest words that are aligned are those of 16 bits.
    word = codes.to(tl.pointer_type(tl.uint16))
    start, held = blocks(rows, inside, first, 9, 32, COLUMNS, SPAN)
    d = half(tl.load(word + start, mask=held, other=0))
    at = start[:, :, None] + 1 + tl.arange(0, 8)[None, None, :]
    q = tl.load(word + at, mask=held[:, :, None], other=0)
    # [BN, U, 8 words, 2 bytes, 2 halves of a byte], of which the halves are to come before the words
    ordered = tl.permute(tl.join(two(q & 0x0F0F), two((q >> 4) & 0x0F0F)), (0, 1, 4, 2, 3))
    shifted = tl.reshape(ordered.to(tl.float32) - 8.0, (rows.shape[0], SPAN // 32, 32))
    return tl.reshape(shifted * d[:, :, None], (rows.shape[0], SPAN))


def numbers(codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None) -> torch.Tensor:
    block = split_rows(codes, 18)
    return ((nibbles(block[..., 2:], 16).float() - 8) * halves(block[..., :2])).flatten(-2)
