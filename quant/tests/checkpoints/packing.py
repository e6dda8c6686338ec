"""Packing weights by the formulas of the papers and format pages, one number at a time: slow, and easy to check."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy
import torch

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Table of appendix E of the QLoRA paper (https://arxiv.org/abs/2305.14314)."""
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""Table of OCP Microscaling Formats 1.0."""
Packed = tuple[dict[str, torch.Tensor], torch.Tensor]
"""The tensors of a weight, and its numbers in float32."""


def string(codes: Iterable[int], bits: int) -> list[int]:
    """32-bit words of codes one behind the other, as signed numbers."""
    whole, count = 0, 0
    for code in codes:
        whole |= int(code) << (bits * count)
        count += 1
    words = [whole >> (32 * place) & 0xFFFFFFFF for place in range(-(-bits * count // 32))]
    return [word - (1 << 32) if word >> 31 else word for word in words]


def words(rows: Iterable[Iterable[int]], bits: int) -> torch.Tensor:
    """int32 [rows, words]."""
    return torch.tensor([string(row, bits) for row in rows], dtype=torch.int32)


def grid(weight: torch.Tensor, bits: int, group: int) -> tuple[numpy.ndarray, torch.Tensor, numpy.ndarray]:
    """Codes [out, in], scales [out, groups] in float16, zeros [out, groups] near a weight."""
    parts = weight.view(len(weight), -1, group)
    low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
    scales = ((high - low) / ((1 << bits) - 1)).half()
    zeros = (-low / scales.float()).round().clamp(1, (1 << bits) - 1)
    codes = (parts / scales.float()[..., None] + zeros[..., None]).round().clamp(0, (1 << bits) - 1)
    return codes.view(weight.shape).int().numpy(), scales, zeros.int().numpy()


def plain(codes: numpy.ndarray, scales: torch.Tensor, zeros: numpy.ndarray) -> torch.Tensor:
    """(code - zero) * scale."""
    group = codes.shape[1] // zeros.shape[1]
    return torch.from_numpy(codes - zeros.repeat(group, 1)).float() * scales.float().repeat_interleave(group, 1)


def gptq(weight: torch.Tensor, bits: int = 4, group: int = 32) -> Packed:
    codes, scales, zeros = grid(weight, bits, group)
    columns = torch.arange(weight.shape[1], dtype=torch.int32)
    made = {
        "qweight": words(codes, bits).T.contiguous(),
        "qzeros": words((zeros - 1).T, bits),
        "scales": scales.T.contiguous(),
        "g_idx": columns // group,
    }
    return made, plain(codes, scales, zeros)


def awq(weight: torch.Tensor, group: int = 32) -> Packed:
    codes, scales, zeros = grid(weight, 4, group)
    order = numpy.array([0, 2, 4, 6, 1, 3, 5, 7])
    mixed = [part.T.reshape(part.shape[1], -1, 8)[:, :, order].reshape(part.shape[1], -1) for part in (codes, zeros)]
    made = {"qweight": words(mixed[0], 4), "qzeros": words(mixed[1], 4), "scales": scales.T.contiguous()}
    return made, plain(codes, scales, zeros)


def fp8(weight: torch.Tensor, block: int = 16) -> Packed:
    """Blocks of block x block, of which the last may be smaller."""
    rows, columns = weight.shape
    stored, numbers = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty_like(weight)
    scales = torch.empty(-(-rows // block), -(-columns // block))
    for row in range(scales.shape[0]):
        for column in range(scales.shape[1]):
            place = slice(row * block, (row + 1) * block), slice(column * block, (column + 1) * block)
            scales[row, column] = weight[place].abs().max() / 448
            stored[place] = (weight[place] / scales[row, column]).to(torch.float8_e4m3fn)
            numbers[place] = stored[place].float() * scales[row, column]
    return {"weight": stored, "weight_scale_inv": scales}, numbers


def nf4(weight: torch.Tensor, block: int = 64) -> Packed:
    parts = weight.reshape(-1, block)
    absmax = parts.abs().amax(1)
    table = torch.tensor(NF4)
    codes = (parts[..., None] / absmax[:, None, None] - table).abs().argmin(-1)
    flat = codes.flatten().to(torch.uint8)
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "float32", "shape": list(weight.shape)}
    made = {
        "weight": (flat[::2] << 4 | flat[1::2])[:, None],
        "weight.absmax": absmax,
        "weight.quant_map": table,
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }
    return made, (table[codes] * absmax[:, None]).view(weight.shape)


def int4(weight: torch.Tensor, group: int = 32) -> Packed:
    """compressed-tensors, symmetric."""
    parts = weight.view(len(weight), -1, group)
    scales = (parts.abs().amax(-1) / 7.5).bfloat16()
    codes = (parts / scales.float()[..., None]).round().clamp(-8, 7)
    made = {
        "weight_packed": words((codes.view(weight.shape).int() + 8).tolist(), 4),
        "weight_scale": scales,
        "weight_shape": torch.tensor(weight.shape),
    }
    return made, (codes * scales.float()[..., None]).view(weight.shape)


def mxfp4(weight: torch.Tensor) -> Packed:
    parts = weight.reshape(*weight.shape[:-1], -1, 32)
    powers = parts.abs().amax(-1).log2().floor() - 2
    table = torch.tensor(E2M1)
    codes = (parts[..., None] / powers.exp2()[..., None, None] - table).abs().argmin(-1)
    numbers = (table[codes] * powers.exp2()[..., None]).view(weight.shape)
    flat = codes.view(weight.shape).to(torch.uint8)
    codes = flat[..., ::2] | flat[..., 1::2] << 4
    return {"weight_packed": codes, "weight_scale": (powers + 127).to(torch.uint8)}, numbers


def mlx(weight: torch.Tensor, bits: int = 4, group: int = 32) -> Packed:
    """code * scale + bias, both float32."""
    parts = weight.view(len(weight), -1, group)
    low = parts.amin(-1)
    scales = (parts.amax(-1) - low) / ((1 << bits) - 1)
    codes = ((parts - low[..., None]) / scales[..., None]).round()
    made = {"weight": words(codes.view(weight.shape).int().tolist(), bits).view(torch.uint32)}
    numbers = (codes * scales[..., None] + low[..., None]).view(weight.shape)
    return {**made, "scales": scales, "biases": low}, numbers
