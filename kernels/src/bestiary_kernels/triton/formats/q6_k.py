# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Q6_K of GGUF: blocks of 256 numbers in 210 bytes (`block_q6_K` of ggml-common.h).

    l       128 bytes  bits 0 to 3
    h       64 bytes   bits 4 and 5
    s       16 bytes   int8, one for each 16 numbers
    d       2 bytes    float16
    x = d s (q - 32)

Each half of a block, 128 numbers, has 64 bytes of l and 32 bytes of h.  Of its four quarters, 2 a + b takes half a of
the bytes of l from 32 b on, and the bits from 4 a + 2 b on of the bytes of h.
"""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.formats.fields import blocks, half, halves, nibbles, signed, split_rows, two


@triton.jit
def decode(codes, scales, addends, rows, inside, first, GROUP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    BN: tl.constexpr = rows.shape[0]
    U: tl.constexpr = SPAN // 256
    # 210 bytes: the widest words that are aligned are those of 16 bits.
    word = codes.to(tl.pointer_type(tl.uint16))
    start, held = blocks(rows, inside, first, 105, 256, COLUMNS, SPAN)
    d = half(tl.load(word + start + 104, mask=held, other=0))
    at = start[:, :, None] + 96 + tl.arange(0, 8)[None, None, :]
    pairs = two(tl.load(word + at, mask=held[:, :, None], other=0))
    scale = tl.reshape(signed(pairs), (BN, U, 16)) * d[:, :, None]
    at = start[:, :, None] + tl.arange(0, 64)[None, None, :]
    low = tl.reshape(tl.load(word + at, mask=held[:, :, None], other=0), (BN, U, 2, 2, 16))  # half, b, word
    at = start[:, :, None] + 64 + tl.arange(0, 32)[None, None, :]
    high = tl.reshape(tl.load(word + at, mask=held[:, :, None], other=0), (BN, U, 2, 1, 16))
    high = high >> (2 * tl.arange(0, 2)[None, None, None, :, None]).to(tl.uint16)
    front = two((low & 0x0F0F) | ((high & 0x0303) << 4))  # a = 0
    back = two(((low >> 4) & 0x0F0F) | (((high >> 4) & 0x0303) << 4))  # a = 1
    # [BN, U, half, b, word, byte, a] to [BN, U, half, a, b, word, byte]
    q = tl.permute(tl.join(front, back), (0, 1, 2, 6, 3, 4, 5)).to(tl.float32) - 32.0
    return tl.reshape(tl.reshape(q, (BN, U, 16, 16)) * scale[:, :, :, None], (BN, SPAN))


def numbers(codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None) -> torch.Tensor:
    block = split_rows(codes, 210)
    # Made on the device: rows of an embedding are asked for while a CUDA graph is recorded, which allows no copies.
    places = torch.arange(0, 8, 2, dtype=torch.uint8, device=codes.device)[:, None]
    high = (split_rows(block[..., 128:192], 32)[..., None, :] >> places & 3).flatten(-3)
    q = (nibbles(block[..., :128], 64) | (high << 4)).float() - 32
    scale = block[..., 192:208].view(torch.int8) * halves(block[..., 208:])
    return (split_rows(q, 16) * scale[..., None]).flatten(-3)
