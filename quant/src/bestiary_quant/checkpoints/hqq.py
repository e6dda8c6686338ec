"""HQQ: whole numbers of 1, 2, 3, 4 or 8 bits with a scale and a zero, both fractions, for groups along either axis.

    X.W_q     X.scale     X.zero     X.nbits, X.axis, X.group_size, X.shape, X.packing and more, each a small tensor

The weight is reshaped to [.., group] (axis 1) or [group, ..] (axis 0), and its rows are packed with a step: a byte of
"4bit_u8" holds row i above and row i + half below.  From `hqq/core/bitpack.py` and `hqq/core/quantize.py` (0.2.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bestiary_quant.checkpoints.bits import pack
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaling import Scaling, along_rows
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import FLOATS, Group, Stored

_PACKINGS = {"8bit_u8": (8, 1), "4bit_u8": (4, 2), "3bit_32": (3, 10), "2bit_u8": (2, 4), "1bit_u8": (1, 8)}
"""Bits of a code, and how many lie in an element."""
_WORDS = (
    *("nbits", "axis", "group_size", "shape", "packing", "view_as_float", "unpack_view_dtype", "compute_dtype"),
    *("quant_scale", "quant_zero", "channel_wise", "optimize", "round_zero", "offload_meta", "encoded_state_dict"),
    "stores_quant_config",
)
_MOST_WORD = 256
"""Bytes of a small tensor."""


def groups(stored: Stored, settings: Settings) -> Iterator[Group]:
    """The packed weights.  Raises ConfigError for settings out of bounds, CheckpointError for tensors that disagree."""
    stated = settings.get("quant_config")
    common = stated.get("weight_quant_params") if isinstance(stated, dict) else None
    for prefix, _ in stored.before(".W_q"):
        form = _form(stored, prefix)
        if isinstance(common, dict):
            own = Settings(common, f"{settings.where}, quant_config")
            bits = own.number("nbits", of=range(1, 9), default=form.nbits)
            size = own.group_size(form.size)
            if (bits, size) != (form.nbits, form.size):
                raise stored.error(
                    f"{prefix}.W_q has {form.nbits} bits in groups of {form.size}; {own.where} says {bits} and {size}."
                )
        yield _group(stored, prefix, form)


@dataclass(frozen=True)
class _Form:
    nbits: int
    bits: int
    """Of a stored code, which may have more than `nbits`."""
    each: int
    """Codes in an element."""
    axis: int
    size: int
    shape: tuple[int, int]
    words: bool
    """Whether an element is a word of 32 bits, else a byte."""


def _form(stored: Stored, prefix: str) -> _Form:
    def values(word: str) -> list[Any]:
        name = f"{prefix}.{word}"
        if name not in stored:
            raise stored.error(f"The packed tensor {prefix + '.W_q'!r} has no {name!r}.")
        return stored.small(name, _MOST_WORD).flatten().tolist()

    def number(word: str, least: int, most: int) -> int:
        found = values(word)
        if len(found) != 1 or not isinstance(found[0], int) or not least <= found[0] <= most:
            raise stored.error(f"{prefix}.{word} is {found}; a number from {least} to {most} is due.")
        return found[0]

    found = values("packing")
    packing = "".join(chr(code) for code in found if isinstance(code, int) and 0 < code < 128)
    if packing not in _PACKINGS:
        raise stored.error(f"{prefix}.packing is {packing!r}; one of {', '.join(_PACKINGS)} is due.")
    bits, each = _PACKINGS[packing]
    shape = values("shape")
    if len(shape) != 2 or not all(isinstance(size, int) and 1 <= size <= 1 << 31 for size in shape):
        raise stored.error(f"{prefix}.shape is {shape}; two numbers from 1 on are due.")
    for word in ("quant_scale", "quant_zero"):
        if f"{prefix}.{word}" in stored and values(word) != [0]:
            raise stored.error(f"{prefix}.{word} says that scales are quantised themselves, which is not read.")
    numbers = shape[0] * shape[1]
    size = number("group_size", 1, numbers)
    if numbers % size:
        raise stored.error(f"{prefix}.group_size is {size}, which does not divide the {numbers} numbers of the weight.")
    nbits, axis = number("nbits", 1, 8), number("axis", 0, 1)
    return _Form(nbits, bits, each, axis, size, (shape[0], shape[1]), words=packing.endswith("32"))


def _group(stored: Stored, prefix: str, form: _Form) -> Group:
    weight, numbers = f"{prefix}.W_q", form.shape[0] * form.shape[1]
    lines, width = (numbers // form.size, form.size) if form.axis else (form.size, numbers // form.size)
    steps = -(-lines // form.each)
    stored.shape(weight, 1, 2)
    stored.dtype(weight, "U8", "I32", *FLOATS)  # floats where it was viewed as such to be shared between devices
    if stored.checkpoint.nbytes(weight) != steps * width * (4 if form.words else 1):
        raise stored.error(
            f"{weight!r} has {stored.checkpoint.nbytes(weight)} bytes; {list(form.shape)} numbers in groups of "
            f"{form.size} along axis {form.axis} have {steps * width * (4 if form.words else 1)}."
        )
    parts = {"codes": weight}
    for role in ("scale", "zero"):
        stored.check(f"{prefix}.{role}", FLOATS, (lines, 1) if form.axis else (1, width))
        parts[role] = f"{prefix}.{role}"
    parts.update(stored.present(f"{prefix}.{word}" for word in _WORDS))

    def make(read: Callable[[str], torch.Tensor]) -> CodedMatrix:
        rows, columns = form.shape
        codes = _codes(read("codes"), form, steps, width)[:lines].reshape(rows, columns)
        scale, zero = read("scale").flatten(), read("zero").flatten()
        if form.axis:
            scales, run = along_rows(scale, rows, columns, form.size)
            scaling = Scaling(scales, run, zeros=along_rows(zero, rows, columns, form.size)[0])
        else:
            scaling = _down(scale, zero, rows, columns)
        return CodedMatrix(Codes(pack(codes, form.bits), form.bits, columns), scaling)

    return Group(f"{prefix}.weight", f"HQQ{form.nbits}", form.shape, parts, make)


def _codes(data: torch.Tensor, form: _Form, steps: int, width: int) -> torch.Tensor:
    """[lines, width] uint8, with what was added to fill the last step."""
    elements = data.view(torch.int32 if form.words else torch.uint8).view(1, steps, width)
    places = torch.arange(form.bits * (form.each - 1), -1, -form.bits, dtype=elements.dtype)
    return ((elements >> places[:, None, None]) & (1 << form.bits) - 1).to(torch.uint8).view(-1, width)


def _down(scale: torch.Tensor, zero: torch.Tensor, rows: int, columns: int) -> Scaling:
    """Scales of groups that run down the weight: each number has that of its place modulo their count."""
    count = len(scale)
    if count % columns:
        place = (torch.arange(rows * columns) % count).view(rows, columns)
        return Scaling(scale[place], 1, zeros=zero[place])
    band = torch.arange(rows) % (count // columns)
    return Scaling(scale.view(-1, columns), 1, zeros=zero.view(-1, columns), band=band)
