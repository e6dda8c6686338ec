# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Q8_0 of GGUF: blocks of 32 numbers in 34 bytes (`block_q8_0` of ggml-common.h).

d       2 bytes   float16
q       32 bytes  int8
x = d q
"""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.formats.fields import blocks, half, halves, signed, split_rows, two


@triton.jit
def decode(codes, scales, addends, rows, inside, first, GROUP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    # An even number of bytes: the widest words that are aligned are those of 16 bits.
    word = codes.to(tl.pointer_type(tl.uint16))
    start, held = blocks(rows, inside, first, 17, 32, COLUMNS, SPAN)
    d = half(tl.load(word + start, mask=held, other=0))
    at = start[:, :, None] + 1 + tl.arange(0, 16)[None, None, :]
    q = signed(two(tl.load(word + at, mask=held[:, :, None], other=0)))
    return tl.reshape(tl.reshape(q, (rows.shape[0], SPAN // 32, 32)) * d[:, :, None], (rows.shape[0], SPAN))


def numbers(codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None) -> torch.Tensor:
    block = split_rows(codes, 34)
    return (block[..., 2:].view(torch.int8) * halves(block[..., :2])).flatten(-2)
