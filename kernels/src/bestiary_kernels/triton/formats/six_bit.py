# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""The scales of Q4_K and Q5_K: what the first 16 bytes of their blocks say of 8 groups of 32 numbers.

d, m    4 bytes   float16 each
s, n    12 bytes  6 bits each: the first four bytes have s of groups 0 to 3 in their low six bits, the next four n;
                  the last four have the low halves of s and of n of groups 4 to 7, whose upper two bits are those
                  left over in the first eight
x = d s q - m n
"""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.formats.fields import half, halves, split_rows


@triton.jit
def scales_and_minima(word, start, held):
    """d s and m n of each group, [BN, U, 8], of the blocks that begin at the 32-bit words `start` [BN, U]."""
    both = tl.load(word + start, mask=held, other=0)
    group = tl.arange(0, 8)[None, None, :]
    place = 8 * (group % 4)
    first = (tl.load(word + start + 1, mask=held, other=0)[:, :, None] >> place) & 255
    second = (tl.load(word + start + 2, mask=held, other=0)[:, :, None] >> place) & 255
    third = (tl.load(word + start + 3, mask=held, other=0)[:, :, None] >> place) & 255
    s = tl.where(group < 4, first & 63, (third & 15) | ((first >> 6) << 4))
    n = tl.where(group < 4, second & 63, (third >> 4) | ((second >> 6) << 4))
    return half(both)[:, :, None] * s.to(tl.float32), half(both >> 16)[:, :, None] * n.to(tl.float32)


@triton.jit
def scaled(q, scale, minimum):
    """Codes [BN, U, 4, 8, 2, 2, 2] as numbers [BN, 256 U]: 4 pairs of groups, 32 bytes in order, the group of the pair.

    The last axis, the half of a byte, is the group within a pair, and is to come before the bytes.
    """
    BN: tl.constexpr = q.shape[0]
    U: tl.constexpr = q.shape[1]
    ordered = tl.reshape(tl.permute(q, (0, 1, 2, 6, 3, 4, 5)).to(tl.float32), (BN, U, 8, 32))
    return tl.reshape(ordered * scale[:, :, :, None] - minimum[:, :, :, None], (BN, U * 256))


def scaled_plain(q: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """Codes q [..., 256] of blocks [..., bytes] as numbers [..., 256]."""
    first, second, third = block[..., 4:8], block[..., 8:12], block[..., 12:16]
    s = torch.cat((first & 63, (third & 15) | (first >> 6 << 4)), -1)
    n = torch.cat((second & 63, (third >> 4) | (second >> 6 << 4)), -1)
    scale, minimum = halves(block[..., :2]) * s, halves(block[..., 2:4]) * n
    return (split_rows(q, 32) * scale[..., None] - minimum[..., None]).flatten(-2)
