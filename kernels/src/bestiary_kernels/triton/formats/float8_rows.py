# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""E4M3 floats with scales of their own for each row: what `bestiary.nn.packed.PackedForm` calls FLOAT8.

    codes   [N, K] float8_e4m3fn or the same as uint8
    scales  [N, G] float32
    y = scale q

Of several scales each serves K / G columns, a multiple of 32.
"""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.formats.fields import split_rows
from bestiary_kernels.triton.formats.float8 import e4m3


@triton.jit
def decode(codes, scales, addends, rows, inside, first, GROUP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    column = first + tl.arange(0, SPAN)
    held = inside[:, None] & (column < COLUMNS)[None, :]
    q = e4m3(tl.load(codes + rows[:, None] * COLUMNS + column[None, :], mask=held, other=0))
    # 32 columns are of one group, however long the groups are.
    group = (first + 32 * tl.arange(0, SPAN // 32)) // GROUP
    held = inside[:, None] & (group < COLUMNS // GROUP)[None, :]
    scale = tl.load(scales + rows[:, None] * (COLUMNS // GROUP) + group[None, :], mask=held, other=0).to(tl.float32)
    q = tl.reshape(q, (rows.shape[0], SPAN // 32, 32))
    return tl.reshape(q * scale[:, :, None], (rows.shape[0], SPAN))


def numbers(codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None) -> torch.Tensor:
    assert scales is not None
    q = split_rows(codes.view(torch.float8_e4m3fn).float(), codes.shape[-1] // scales.shape[-1])
    return (q * scales.float()[..., None]).flatten(-2)
