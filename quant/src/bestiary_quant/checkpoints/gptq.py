"""GPTQ: whole numbers of 2, 3, 4 or 8 bits with a scale and a zero for each group of columns.

    X.qweight [in * bits / 32, out] int32: each column of words is a row of codes     X.scales [groups, out]
    X.qzeros [groups, out * bits / 32] int32                                          X.g_idx [in] int32

The layout is that of AutoGPTQ (`QuantLinear.pack`) and GPTQModel.  `checkpoint_format` "gptq" stores each zero less
one, "gptq_v2" as it is; "marlin" is in `marlin.py`.  Frantar et al. 2022, https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from bestiary_quant.checkpoints import marlin
from bestiary_quant.checkpoints.bits import row_bytes, unpack
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes, centred
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import FLOATS, Group, Stored

BITS = (2, 3, 4, 8)
_FORMATS = ("gptq", "gptq_v2", "marlin")


def groups(stored: Stored, settings: Settings) -> Iterator[Group]:
    """The packed weights.  Raises ConfigError for settings out of bounds, CheckpointError for tensors that disagree."""
    form = settings.word("checkpoint_format", "format", of=_FORMATS, default="gptq")
    if form == "marlin" or settings.flag("is_marlin_format"):
        yield from marlin.groups(stored, settings)
        return
    bits = settings.number("bits", "w_bit", of=BITS, default=4)
    size = settings.group_size(128)
    # GPTQModel's `dynamic` sets other bits and groups by patterns on names.  A pattern from a file could run for ever,
    # and the shapes say the same; so it only allows that they differ from the common setting.
    varied = bool(settings.get("dynamic"))
    for prefix, _ in stored.before(".qweight"):
        yield _group(stored, settings, prefix, bits, size, varied=varied, less_one=form == "gptq")


def _group(
    stored: Stored, settings: Settings, prefix: str, bits: int, size: int | None, *, varied: bool, less_one: bool
) -> Group:
    weight, zeros, order = f"{prefix}.qweight", f"{prefix}.qzeros", f"{prefix}.g_idx"
    scales = stored.one_of([f"{prefix}.scales"], weight, "scales")
    stored.dtype(weight, "I32")
    words, rows = stored.shape(weight, 2)
    count, outputs = stored.shape(scales, 2)
    if outputs != rows:
        hint = " As AWQ they would agree." if outputs == rows * 32 // bits else ""
        raise stored.error(f"{weight!r} has {rows} columns, and {scales!r} {outputs}.{hint}")
    if zeros in stored:
        bits = _bits(stored, settings, prefix, bits, rows, varied)
        stored.check(zeros, ("I32",), (count, -(-rows * bits // 32)))
    elif not settings.flag("sym"):
        raise stored.error(
            f"The packed tensor {weight!r} has no zeros ({zeros}), and the configuration is not symmetric."
        )
    columns = stored.shape(order, 1)[0] if order in stored else words * 32 // bits
    if -(-columns * bits // 32) != words:
        raise stored.error(
            f"{weight!r} has {words} rows of words, and {columns} columns of {bits} bits "
            f"need {-(-columns * bits // 32)}.",
            fix=f"bits of {settings.where} is {bits}: check it",
        )
    run = columns if size is None else size
    if count != -(-columns // run):
        if not varied or columns % count:
            stated = -1 if size is None else size
            raise stored.error(
                f"{scales!r} has {count} groups; with the group_size {stated} of {settings.where} "
                f"{columns} columns have {-(-columns // run)}."
            )
        run = columns // count
    stored.dtype(scales, *FLOATS)
    if order in stored:
        stored.dtype(order, "I32", "I64")
    parts = {"codes": weight, "scales": scales, "zeros": zeros, "order": order}
    parts = {role: name for role, name in parts.items() if name in stored}

    def make(read: Callable[[str], torch.Tensor]) -> CodedMatrix:
        data = read("codes").T.contiguous().view(torch.uint8)[:, : row_bytes(columns, bits)]
        zero = _zeros(read("zeros"), bits, rows, less_one) if "zeros" in parts else None
        place = group_order(stored, order, read("order"), count, run) if "order" in parts else None
        scaling = Scaling(read("scales").T.contiguous(), run, zeros=zero, order=place)
        return CodedMatrix(Codes(data, bits, columns, centred(bits) if zero is None else None), scaling)

    return Group(f"{prefix}.weight", f"GPTQ{bits}", (rows, columns), parts, make)


def _bits(stored: Stored, settings: Settings, prefix: str, bits: int, rows: int, varied: bool) -> int:
    width = stored.shape(f"{prefix}.qzeros", 2)[1]
    fitting = [choice for choice in BITS if -(-rows * choice // 32) == width]
    if bits in fitting:
        return bits
    if not fitting or not varied:
        shows = f"{fitting[0]} bits" if fitting else "no number of bits"
        raise stored.error(
            f"{prefix}.qzeros has {width} words for {rows} columns, which is {shows}, "
            f'and "bits" of {settings.where} is {bits}.'
        )
    return fitting[0]


def _zeros(words: torch.Tensor, bits: int, rows: int, less_one: bool) -> torch.Tensor:
    """Zeros [rows, groups] uint8."""
    if less_one and 32 % bits == 0:
        # GPTQModel takes the one from whole words: a zero of 0 borrows from the field above it, and gets it back here.
        words = words + sum(1 << place for place in range(0, 32, bits))
    zeros = unpack(words.view(torch.uint8), bits, rows)
    if less_one and 32 % bits:
        zeros = (zeros + 1) & (1 << bits) - 1
    return zeros.T.contiguous()


def group_order(stored: Stored, name: str, order: torch.Tensor, count: int, run: int) -> torch.Tensor | None:
    """The group of each column; None where they follow one another.  Raises CheckpointError for one that is absent."""
    if int(order.min()) < 0 or int(order.max()) >= count:
        raise stored.error(
            f"The tensor {name!r} names groups {int(order.min())} to {int(order.max())}; there are {count}."
        )
    plain = torch.arange(len(order), device=order.device) // run
    return None if torch.equal(order.long(), plain) else order.long()
