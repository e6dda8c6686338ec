"""Codes in the words of GPTQ, AWQ and MXFP4, as `bestiary_quant.checkpoints` reads them back."""

from __future__ import annotations

import torch

from bestiary_quant.checkpoints.bits import pack, unpack
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import centred
from bestiary_quant.checkpoints.float4 import E2M1
from bestiary_quant.packed import PackedMatrix

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
"""The outputs of a word, from its lowest bits on (AutoAWQ, awq/modules/linear/gemm.py)."""
Words = dict[str, torch.Tensor]


def gptq(weight: CodedMatrix) -> Words | None:
    """qweight, qzeros, scales and g_idx of the first version, whose zeros are less one; None for other codes."""
    codes, scaling, (rows, columns) = weight.codes, weight.scaling, weight.shape
    zeros = whole_zeros(weight)
    if zeros is None or rows * codes.bits % 32 or columns * codes.bits % 32:
        return None
    words = pack(zeros.T.contiguous(), codes.bits).view(torch.int32)
    if 32 % codes.bits:
        words = pack(((zeros.int() - 1) & (1 << codes.bits) - 1).to(torch.uint8).T, codes.bits).view(torch.int32)
    else:
        # From whole words, as GPTQModel does: a zero of 0 borrows from the field above.
        words = (words.long() - sum(1 << place for place in range(0, 32, codes.bits))).to(torch.int32)
    order = torch.arange(columns) // scaling.run if scaling.order is None else scaling.order
    return {
        "qweight": codes.data.contiguous().view(torch.int32).T,
        "qzeros": words,
        "scales": half_if_exact(scaling.scales).T,
        "g_idx": order.to(torch.int32),
    }


def awq(weight: CodedMatrix) -> Words | None:
    """qweight, qzeros and scales of the version "gemm"; None for codes that are not of 4 bits in runs of columns."""
    codes, scaling, (rows, columns) = weight.codes, weight.scaling, weight.shape
    zeros = whole_zeros(weight)
    if zeros is None or codes.bits != 4 or rows % 8 or scaling.order is not None:
        return None
    return {
        "qweight": _awq_words(unpack(codes.data, 4, columns).T),
        "qzeros": _awq_words(zeros.T),
        "scales": half_if_exact(scaling.scales).T,
    }


def mxfp4(weight: object) -> Words | None:
    """weight_packed and weight_scale, two codes in a byte and a power of two for 32 columns; None for other weights."""
    if isinstance(weight, PackedMatrix) and weight.kind.name == "MXFP4":
        # A block: the power, then bytes with codes j and j + 16.
        blocks = weight.data.reshape(weight.shape[0], -1, weight.kind.nbytes)
        codes = torch.cat((blocks[..., 1:] & 15, blocks[..., 1:] >> 4), -1).flatten(1)
        return {"weight_packed": pack(codes, 4), "weight_scale": blocks[..., 0].contiguous()}
    if not isinstance(weight, CodedMatrix) or weight.codes.table != E2M1 or weight.scaling.run != 32:
        return None
    scales = weight.scaling.scales
    if scales.dtype != torch.float8_e8m0fnu or len(weight.scaling.tensors()) > 1:
        return None
    return {"weight_packed": weight.codes.data, "weight_scale": scales.view(torch.uint8)}


def whole_zeros(weight: CodedMatrix) -> torch.Tensor | None:
    """The zeros [out, groups] uint8 of codes that are whole numbers with a scale and a zero; None for others."""
    codes, scaling = weight.codes, weight.scaling
    if codes.data.dtype != torch.uint8 or scaling.offsets is not None or scaling.factor is not None:
        return None
    if scaling.band is not None or len(scaling.scales) != weight.shape[0]:
        return None
    if scaling.zeros is None:
        if codes.table != centred(codes.bits):
            return None
        return torch.full(scaling.scales.shape, 1 << codes.bits - 1, dtype=torch.uint8)
    whole = scaling.zeros.float()
    fits = (whole == whole.round()) & (whole >= 0) & (whole < 1 << codes.bits)
    return whole.to(torch.uint8) if codes.table is None and bool(fits.all()) else None


def half_if_exact(scales: torch.Tensor) -> torch.Tensor:
    """Scales as 16-bit floats, which kernels take, where these are the same numbers."""
    half = scales.half()
    return half if torch.equal(half.float(), scales.float()) else scales


def _awq_words(codes: torch.Tensor) -> torch.Tensor:
    """Codes [R, C] as words [R, C / 8]."""
    ordered = codes.reshape(len(codes), -1, 8)[:, :, AWQ_ORDER].flatten(1)
    return pack(ordered, 4).view(torch.int32)
