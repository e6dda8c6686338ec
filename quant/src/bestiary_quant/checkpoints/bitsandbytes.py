"""bitsandbytes: NF4 and FP4 in blocks of the weight laid out as one line, and int8 with a scale for each row.

    X.weight uint8, two codes in a byte, the first in the high bits     X.weight.absmax [blocks]
    X.weight.quant_map [16]     X.weight.quant_state.bitsandbytes__nf4, JSON in bytes: blocksize, shape and more
    where absmax is quantised itself: X.weight.nested_absmax, X.weight.nested_quant_map [256]

    X.weight int8     X.SCB [out], the largest size in each row     X.weight_format, a zero

From `bitsandbytes/functional.py` (QuantState, dequantize_4bit, int8_vectorwise_dequant).  Dettmers et al. 2023,
https://arxiv.org/abs/2305.14314, and 2022, https://arxiv.org/abs/2208.07339.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from bestiary.errors import shown
from bestiary_quant.checkpoints.bits import pack
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack, shaped
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaled import scaled_group
from bestiary_quant.checkpoints.scaling import Scaling, along_rows
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import Group, Stored

_STATE = ".quant_state.bitsandbytes__"
_TYPES = ("nf4", "fp4")
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_MOST_STATE = 1 << 16
"""Bytes of the JSON; honest ones have about 200."""
_STORAGE = ("U8", "I8", "F16", "BF16", "F32")
"""Types in which codes may be stored (`bnb_4bit_quant_storage`); only their bytes count."""


def groups(stored: Stored, settings: Settings) -> Iterator[Group]:
    """The packed weights.  Raises ConfigError for settings out of bounds, CheckpointError for tensors that disagree."""
    kinds = set()
    for kind in _TYPES:
        for name, _ in stored.before(_STATE + kind):
            kinds.add(kind)
            yield _group4(stored, name, kind)
    if settings.flag("load_in_4bit", "_load_in_4bit") and kinds:
        stated = settings.word("bnb_4bit_quant_type", of=_TYPES, default="fp4")
        if stated not in kinds:
            raise stored.error(
                f'"bnb_4bit_quant_type" of {settings.where} is {stated}, and the tensors are {kinds.pop()}.'
            )
    for prefix, _ in stored.before(".SCB"):
        yield _group8(stored, settings, prefix)


def _group8(stored: Stored, settings: Settings, prefix: str) -> Group:
    name, scale, order = f"{prefix}.weight", f"{prefix}.SCB", f"{prefix}.weight_format"
    rows, _ = stored.shape(name, 2)
    stored.dtype(name, "I8")
    stored.check(scale, ("F32", "F16", "BF16"), (rows,))
    if order in stored and stored.small(order, 8).flatten().tolist() != [0]:
        raise stored.error(f"{order!r} says that the weight is rearranged for a kernel; row by row is due.")
    return scaled_group(stored, settings, name, scale, beside=[order], divide=127.0)


def _group4(stored: Stored, name: str, kind: str) -> Group:
    label = name + _STATE + kind
    state = _state(stored, label)
    shape, numbers = state.shape, prod(state.shape)
    stored.dtype(name, *_STORAGE)
    if stored.checkpoint.nbytes(name) != -(-numbers // 2):
        raise stored.error(
            f"{name!r} has {stored.checkpoint.nbytes(name)} bytes; "
            f"{list(shape)} codes of 4 bits, as {label!r} says, have {-(-numbers // 2)}."
        )
    blocks = -(-numbers // state.block)
    nested = f"{name}.nested_absmax" in stored
    stored.check(f"{name}.absmax", ("U8",) if nested else ("F32",), (blocks,))
    stored.check(f"{name}.quant_map", ("F32",), (16,))
    parts = {"codes": name, "absmax": f"{name}.absmax", "map": f"{name}.quant_map", "state": label}
    if nested:
        if state.nested_block is None:
            raise stored.error(f"{label!r} does not say how {name}.absmax is quantised.")
        stored.check(f"{name}.nested_absmax", ("F32",), (-(-blocks // state.nested_block),))
        stored.check(f"{name}.nested_quant_map", ("F32",), (256,))
        parts.update(nested_absmax=f"{name}.nested_absmax", nested_map=f"{name}.nested_quant_map")

    def make(read: Callable[[str], torch.Tensor]) -> CodedMatrix | CodedStack:
        rows, columns = prod(shape[:-1]), shape[-1]
        absmax = _nested(read, state) if nested else read("absmax")
        scales, run = along_rows(absmax, rows, columns, state.block)
        data = read("codes").view(torch.uint8).flatten()
        if columns % 2:  # rows begin in the middle of a byte
            codes = torch.stack((data >> 4, data & 15), -1).flatten()[:numbers]
            data = pack(codes.view(rows, columns), 4)
        else:
            data = ((data << 4) | (data >> 4)).view(rows, columns // 2)
        return shaped(CodedMatrix(Codes(data, 4, columns, tuple(read("map").tolist())), Scaling(scales, run)), shape)

    return Group(name, kind.upper(), shape, parts, make)


@dataclass(frozen=True)
class _State:
    shape: tuple[int, ...]
    block: int
    nested_block: int | None
    offset: float


def _state(stored: Stored, label: str) -> _State:
    """What the JSON of a weight says.  Raises CheckpointError for what is not such JSON."""
    stored.dtype(label, "U8")
    text = bytes(stored.small(label, _MOST_STATE).flatten().tolist())
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise stored.error(f"The tensor {label!r} does not hold JSON: {str(error)[:100]}") from None
    if not isinstance(values, dict):
        raise stored.error(f"The tensor {label!r} holds {shown(values)}; an object is due.")
    shape = values.get("shape")
    if not isinstance(shape, list) or len(shape) not in (2, 3) or not all(_whole(size, 1 << 31) for size in shape):
        raise stored.error(f'"shape" of {label!r} is {shown(shape)}; two or three numbers from 1 on are due.')
    block = _block(stored, label, values, "blocksize")
    nested = _block(stored, label, values, "nested_blocksize") if "nested_blocksize" in values else None
    offset = values.get("nested_offset", 0.0)
    if isinstance(offset, bool) or not isinstance(offset, int | float) or not abs(offset) < 1e30:
        raise stored.error(f'"nested_offset" of {label!r} is {shown(offset)}; a number is due.')
    return _State(tuple(shape), block, nested, float(offset))


def _block(stored: Stored, label: str, values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    if not _whole(value, 4096) or value not in _BLOCKS:
        raise stored.error(f'"{key}" of {label!r} is {shown(value)}; one of {", ".join(map(str, _BLOCKS))} is due.')
    return int(value)


def _whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _nested(read: Callable[[str], torch.Tensor], state: _State) -> torch.Tensor:
    numbers = read("nested_map")[read("absmax").int()]
    scales = read("nested_absmax").repeat_interleave(state.nested_block or 1)[: len(numbers)]
    return numbers * scales + state.offset
