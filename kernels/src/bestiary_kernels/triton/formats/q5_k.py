# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Q5_K of GGUF: blocks of 256 numbers in 176 bytes (`block_q5_K` of ggml-common.h).

scales  16 bytes   see `six_bit.py`
h       32 bytes   bit g of byte i is bit 4 of number i of group g
q       128 bytes  bits 0 to 3: of each 32 bytes the low halves are a group of 32 numbers, the high halves the next
"""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.formats.fields import blocks, four, nibbles, split_rows
from bestiary_kernels.triton.formats.six_bit import scaled, scaled_plain, scales_and_minima


@triton.jit
def decode(codes, scales, addends, rows, inside, first, GROUP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    word = codes.to(tl.pointer_type(tl.uint32))
    start, held = blocks(rows, inside, first, 44, 256, COLUMNS, SPAN)
    scale, minimum = scales_and_minima(word, start, held)
    at = start[:, :, None] + 12 + tl.arange(0, 32)[None, None, :]
    q = tl.reshape(tl.load(word + at, mask=held[:, :, None], other=0), (rows.shape[0], SPAN // 256, 4, 8))
    at = start[:, :, None] + 4 + tl.arange(0, 8)[None, None, :]
    pair = 2 * tl.arange(0, 4)[None, None, :, None]
    high = tl.load(word + at, mask=held[:, :, None], other=0)[:, :, None, :] >> pair
    front = (q & 0x0F0F0F0F) | ((high & 0x01010101) << 4)
    back = ((q >> 4) & 0x0F0F0F0F) | (((high >> 1) & 0x01010101) << 4)
    return scaled(tl.join(four(front), four(back)), scale, minimum)


def numbers(codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None) -> torch.Tensor:
    block = split_rows(codes, 176)
    places = torch.arange(8, dtype=torch.uint8, device=codes.device)[:, None]
    high = (block[..., None, 16:48] >> places & 1).flatten(-2)
    return scaled_plain(nibbles(block[..., 48:], 32) | (high << 4), block).flatten(-2)
