# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Q4_K of GGUF: blocks of 256 numbers in 144 bytes (`block_q4_K` of ggml-common.h).

scales  16 bytes   see `six_bit.py`
q       128 bytes  of each 32 bytes the low halves are a group of 32 numbers, the high halves the next group
"""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.formats.fields import blocks, four, nibbles, split_rows
from bestiary_kernels.triton.formats.six_bit import scaled, scaled_plain, scales_and_minima


@triton.jit
def decode(codes, scales, addends, rows, inside, first, GROUP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    word = codes.to(tl.pointer_type(tl.uint32))
    start, held = blocks(rows, inside, first, 36, 256, COLUMNS, SPAN)
    scale, minimum = scales_and_minima(word, start, held)
    at = start[:, :, None] + 4 + tl.arange(0, 32)[None, None, :]
    q = tl.reshape(tl.load(word + at, mask=held[:, :, None], other=0), (rows.shape[0], SPAN // 256, 4, 8))
    return scaled(tl.join(four(q & 0x0F0F0F0F), four((q >> 4) & 0x0F0F0F0F)), scale, minimum)


def numbers(codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None) -> torch.Tensor:
    block = split_rows(codes, 144)
    return scaled_plain(nibbles(block[..., 16:], 32), block).flatten(-2)
