# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Four-bit codes with a scale and an addend for each group of columns: what GPTQ, AWQ and HQQ hold, once unpacked.

    codes    [N, K / 2] uint8    byte i has number 2 i in its low half, number 2 i + 1 in its high one
    scales   [N, K / G] float    any type
    addends  [N, K / G] float    of GPTQ and AWQ, whose zero point is a code, it is -scale * zero
    y = scale q + addend

G is a multiple of 32 that divides K.  A GPTQ weight whose groups are not in the order of its columns (`desc_act`) is
this one for the columns of x in the order of `g_idx`.
"""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.formats.fields import nibbles, split_rows


@triton.jit
def decode(codes, scales, addends, rows, inside, first, GROUP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    byte = first // 2 + tl.arange(0, SPAN // 2)
    held = inside[:, None] & (byte < COLUMNS // 2)[None, :]
    q = tl.load(codes + rows[:, None] * (COLUMNS // 2) + byte[None, :], mask=held, other=0)
    q = tl.reshape(tl.join(q & 15, q >> 4).to(tl.float32), (rows.shape[0], SPAN // 32, 32))
    # 32 columns are of one group, however long the groups are.
    group = (first + 32 * tl.arange(0, SPAN // 32)) // GROUP
    held = inside[:, None] & (group < COLUMNS // GROUP)[None, :]
    at = rows[:, None] * (COLUMNS // GROUP) + group[None, :]
    scale = tl.load(scales + at, mask=held, other=0).to(tl.float32)
    addend = tl.load(addends + at, mask=held, other=0).to(tl.float32)
    return tl.reshape(q * scale[:, :, None] + addend[:, :, None], (rows.shape[0], SPAN))


def numbers(codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None) -> torch.Tensor:
    assert scales is not None and addends is not None
    q = split_rows(nibbles(codes, 1).float(), 2 * codes.shape[-1] // scales.shape[-1])
    return (q * scales.float()[..., None] + addends.float()[..., None]).flatten(-2)
