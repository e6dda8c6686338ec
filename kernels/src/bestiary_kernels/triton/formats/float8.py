# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""E4M3 floats with a scale for each tile of 128 rows and 128 columns (DeepSeek-V3, arXiv 2412.19437; Qwen3-FP8).

codes   [N, K] float8_e4m3fn or the same as uint8
scales  [ceil(N / 128), ceil(K / 128)] float   `weight_scale_inv` of the files
y = scale q
"""

import torch
import triton
import triton.language as tl


@triton.jit
def e4m3(code):
    """Sign, four bits of exponent, three of mantissa in float32, on processors too that have no such type.

    Moved up to where float16 has its exponent and mantissa it is the number over 2^8, subnormal ones too.
    """
    bits = code.to(tl.uint16)
    number = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return tl.where((bits & 0x7F) == 0x7F, float("nan"), number)


@triton.jit
def decode(codes, scales, addends, rows, inside, first, GROUP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    column = first + tl.arange(0, SPAN)
    held = inside[:, None] & (column < COLUMNS)[None, :]
    q = e4m3(tl.load(codes + rows[:, None] * COLUMNS + column[None, :], mask=held, other=0))
    tile = first // 128 + tl.arange(0, SPAN // 128)
    held = inside[:, None] & (tile * 128 < COLUMNS)[None, :]
    at = (rows // 128)[:, None] * tl.cdiv(COLUMNS, 128) + tile[None, :]
    scale = tl.load(scales + at, mask=held, other=0).to(tl.float32)
    q = tl.reshape(q, (rows.shape[0], SPAN // 128, 128))
    return tl.reshape(q * scale[:, :, None], (rows.shape[0], SPAN))


def numbers(codes: torch.Tensor, scales: torch.Tensor | None, addends: torch.Tensor | None) -> torch.Tensor:
    assert scales is not None
    spread = scales.float().repeat_interleave(128, -2).repeat_interleave(128, -1)
    return codes.view(torch.float8_e4m3fn).float() * spread[..., : codes.shape[-2], : codes.shape[-1]]
