"""The weight of a layer, for each family: what it is by its headers, and how it is made of its parts.

    gguf     blocks of one of ggml's types
    unquant  plain numbers
    hqq      (code - zero) * scale for groups down the weight, in `hqq.py`
    fp8      float8 e4m3 * dequant_w_scale, one for all; the other scales are for code that quantises activations too
    afq      code * scale + bias for groups of a row, as MLX has it; codes in a string of bits, in words of 32
    f8q8     blocks of 32: a scale in float8 e4m3, of which a 416th counts, and signed bytes
    mxfp4    two codes of four bits in a byte, the first in the low half, and a power of two for each 32

After the `serialize_uqff` and `dequantize` of each in mistralrs-quant/src (https://github.com/EricLBuehler/mistral.rs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

import torch

from bestiary_quant.blocks.dequantize import dequantize
from bestiary_quant.blocks.types import TYPES, BlockType
from bestiary_quant.checkpoints.coded import CodedMatrix, shaped
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.float4 import E2M1
from bestiary_quant.checkpoints.scaling import Scaling, along_rows
from bestiary_quant.checkpoints.stored import FLOATS, Stored
from bestiary_quant.making.pack import Packed
from bestiary_quant.making.schemes import F8Q8
from bestiary_quant.packed import PackedMatrix, PackedStack
from bestiary_quant.uqff import form
from bestiary_quant.uqff.described import check_bytes, dimensions, number
from bestiary_quant.uqff.hqq import hqq_matrix

Read = Callable[[str], torch.Tensor]


@dataclass(frozen=True)
class Weight:
    """A weight, by its headers; of `packed` and `plain`, functions of one that reads a part, it has one."""

    kind: str
    """What `Checkpoint.dtype` says: "Q4_K", "AFQ4", "F32"."""
    shape: tuple[int, ...]
    """[out, in], or [experts, out, in]."""
    packed: Callable[[Read], Packed] | None = None
    plain: Callable[[Read], torch.Tensor] | None = None


def _gguf(stored: Stored, weight: str) -> Weight:
    code = number(stored, f"{weight}.dtype", "U32")
    if code not in form.GGML:
        raise stored.error(f"{weight + '.dtype'!r} is {code}, which is no type of ggml that UQFF holds.")
    kind = TYPES[code]
    shape = dimensions(stored, f"{weight}.shape")
    if shape[-1] % kind.length:
        raise stored.error(f"{weight!r} has rows of {shape[-1]} numbers, and {kind.name} has blocks of {kind.length}.")
    row = kind.row(shape[-1])
    check_bytes(stored, weight, prod(shape[:-1]) * row, shape, kind.name)
    if kind.dtype is None:
        return Weight(kind.name, shape, packed=lambda read: _blocks(read(weight).view(*shape[:-1], row), kind))
    dtype: torch.dtype = getattr(torch, kind.dtype)

    def plain(read: Read) -> torch.Tensor:
        data = read(weight)
        return (data.clone() if data.storage_offset() % dtype.itemsize else data).view(dtype).view(shape)

    return Weight(kind.name, shape, plain=plain)


def _unquant(stored: Stored, weight: str) -> Weight:
    return Weight(stored.dtype(weight, *FLOATS), stored.shape(weight, 2, 3), plain=lambda read: read(weight))


def _hqq(stored: Stored, weight: str) -> Weight:
    bits, shape, packed = hqq_matrix(stored, weight)
    return Weight(f"HQQ{bits}", shape, packed=packed)


def _fp8(stored: Stored, weight: str) -> Weight:
    if (code := number(stored, f"{weight}.dtype", "U32")) != form.F8_E4M3:
        raise stored.error(f"{weight + '.dtype'!r} is {code}; only {form.F8_E4M3}, float8 e4m3, is read.")
    stored.dtype(weight, "F8_E4M3")
    shape = stored.shape(weight, 2, 3)
    for role in ("dequant_w_scale", "dequant_x_scale", "quant_scale"):
        stored.check(f"{weight}.{role}", FLOATS, ())

    def packed(read: Read) -> Packed:
        data = read(weight).reshape(-1, shape[-1])
        band = torch.zeros(len(data), dtype=torch.int64)
        scaling = Scaling(read(f"{weight}.dequant_w_scale").view(1, 1), shape[-1], band=band)
        return shaped(CodedMatrix(Codes(data, 8, shape[-1]), scaling), shape)

    return Weight("FP8", shape, packed=packed)


def _afq(stored: Stored, weight: str) -> Weight:
    bits, group = number(stored, f"{weight}.bits", "U8"), number(stored, f"{weight}.group_size", "U8")
    if bits not in form.AFQ_BITS or group not in form.AFQ_GROUPS:
        raise stored.error(
            f"{weight!r} has {bits} bits in groups of {group}; AFQ has {', '.join(map(str, form.AFQ_BITS))} bits in "
            f"groups of {', '.join(map(str, form.AFQ_GROUPS))}."
        )
    stored.dtype(weight, "U32")
    given, counts = stored.shape(weight, 2, 3), stored.shape(f"{weight}.scales", 2, 3)
    columns = counts[-1] * group
    if given[:-1] != counts[:-1] or given[-1] * 32 != columns * bits:
        raise stored.error(
            f"{weight!r} of the shape {list(given)} and its scales of {list(counts)} do not agree with {bits} bits in "
            f"groups of {group}."
        )
    for role in ("scales", "biases"):
        stored.check(f"{weight}.{role}", FLOATS, counts)
    shape = (*given[:-1], columns)

    def packed(read: Read) -> Packed:
        data = read(weight).view(torch.uint8).view(-1, given[-1] * 4)
        scales, offsets = (read(f"{weight}.{role}").reshape(-1, counts[-1]) for role in ("scales", "biases"))
        return shaped(CodedMatrix(Codes(data, bits, columns), Scaling(scales, group, offsets=offsets)), shape)

    return Weight(f"AFQ{bits}", shape, packed=packed)


def _f8q8(stored: Stored, weight: str) -> Weight:
    shape = dimensions(stored, f"{weight}.shape")
    count = -(-prod(shape) // F8Q8.length)
    if (stated := number(stored, f"{weight}.num_blocks", "U32")) != count:
        raise stored.error(f"{weight + '.num_blocks'!r} is {stated}; {list(shape)} numbers have {count} blocks.")
    check_bytes(stored, weight, count * F8Q8.nbytes, shape, F8Q8.name)
    if shape[-1] % F8Q8.length:
        return Weight(F8Q8.name, shape, packed=lambda read: _running_on(read(weight).view(-1, F8Q8.nbytes), shape))
    row = F8Q8.row(shape[-1])
    return Weight(F8Q8.name, shape, packed=lambda read: _blocks(read(weight).view(*shape[:-1], row), F8Q8))


def _running_on(blocks: torch.Tensor, shape: tuple[int, ...]) -> Packed:
    """Blocks that go on in the next row, which mistral.rs makes where rows are no multiple of 32."""
    numbers = blocks[:, 1:].flatten()[: prod(shape)].view(torch.int8).view(-1, shape[-1])
    ones = torch.cat((blocks[:, :1], torch.ones_like(blocks[:, 1:])), 1)
    scales = dequantize(ones, F8Q8)[:, 0].contiguous()
    along, run = along_rows(scales, len(numbers), shape[-1], F8Q8.length)
    return shaped(CodedMatrix(Codes(numbers, 8, shape[-1]), Scaling(along, run)), shape)


def _mxfp4(stored: Stored, weight: str) -> Weight:
    stored.dtype(weight, "U8")
    given = stored.shape(weight, 2, 3)
    if given[-1] % 16:
        raise stored.error(f"{weight!r} has rows of {given[-1]} bytes; MXFP4 has blocks of 16.")
    counts, shape = (*given[:-1], given[-1] // 16), (*given[:-1], given[-1] * 2)
    stored.check(f"{weight}.scales", ("U8",), counts)

    def packed(read: Read) -> Packed:
        codes = Codes(read(weight).reshape(-1, given[-1]), 4, shape[-1], E2M1)
        scales = read(f"{weight}.scales").reshape(-1, counts[-1]).view(torch.float8_e8m0fnu)
        return shaped(CodedMatrix(codes, Scaling(scales, 32)), shape)

    return Weight("MXFP4", shape, packed=packed)


def _blocks(data: torch.Tensor, kind: BlockType) -> Packed:
    return PackedMatrix(data, kind) if data.ndim == 2 else PackedStack(data, kind)


READERS: Mapping[int, Callable[[Stored, str], Weight]] = MappingProxyType(
    {
        form.GGUF: _gguf,
        form.UNQUANT: _unquant,
        form.HQQ: _hqq,
        form.FP8: _fp8,
        form.AFQ: _afq,
        form.F8Q8: _f8q8,
        form.MXFP4: _mxfp4,
    }
)
"""By the number of the family.  Each raises CheckpointError where the parts of a weight do not agree."""
