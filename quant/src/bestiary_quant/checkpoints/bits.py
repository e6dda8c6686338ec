"""Strings of bits: whole numbers of 1 to 8 bits one behind the other, lowest bit first, each row in whole bytes.

GPTQ, AWQ, MLX and compressed-tensors pack into 32-bit words; on a little-endian machine, and safetensors are opened on
no other, their bytes are such a string.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from bestiary_quant.packed import PANEL


def row_bytes(columns: int, bits: int) -> int:
    """Bytes of a row."""
    return -(-columns * bits // 8)


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes [R, C] uint8 below 2^bits -> [R, row bytes] uint8."""
    count, columns = codes.shape
    if 8 % bits == 0:
        parts = F.pad(codes, (0, -columns % (8 // bits))).reshape(count, -1, 8 // bits)
        data = parts[..., 0].clone()
        for place in range(1, 8 // bits):
            data |= parts[..., place] << (bits * place)
        return data
    eights = F.pad(codes, (0, -columns % 8)).reshape(count, -1, 8).long()
    words = (eights << _places(bits, codes.device)).sum(-1)  # the fields do not meet, so that the sum joins them
    return words.view(torch.uint8).view(count, -1, 8)[..., :bits].flatten(1)[:, : row_bytes(columns, bits)].contiguous()


def unpack(data: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """The opposite of `pack`: data [R, at least the row bytes] -> codes [R, columns] uint8."""
    count, mask = len(data), (1 << bits) - 1
    if 8 % bits == 0:
        places = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device)
        return ((data[..., None] >> places) & mask).flatten(1)[:, :columns]
    used = data[:, : row_bytes(columns, bits)]
    eights = F.pad(used, (0, -used.shape[1] % bits)).reshape(count, -1, bits)
    words = F.pad(eights, (0, 8 - bits)).view(torch.int64)
    return ((words >> _places(bits, data.device)) & mask).to(torch.uint8).flatten(1)[:, :columns]


def turn(
    panel: Callable[[slice], torch.Tensor], rows: int, columns: int, bits: int, unit: int, device: torch.device
) -> torch.Tensor:
    """Codes that are stored with the columns of the weight as rows, as [rows, row bytes] uint8.

    `panel(slice)` gives the codes [some columns, rows] of a slice whose ends are multiples of `unit`, a multiple of 8.
    Few columns are unpacked at a time, so that the codes of a large weight never lie in memory unpacked.
    """
    data = torch.empty(rows, row_bytes(columns, bits), dtype=torch.uint8, device=device)
    step = max(1, PANEL // (unit * max(rows, 1))) * unit
    for start in range(0, columns, step):
        stop = min(start + step, columns)
        data[:, start * bits // 8 : row_bytes(stop, bits)] = pack(panel(slice(start, stop)).T, bits)
    return data


def _places(bits: int, device: torch.device) -> torch.Tensor:
    return torch.arange(0, 8 * bits, bits, device=device)
