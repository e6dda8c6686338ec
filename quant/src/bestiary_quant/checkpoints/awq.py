"""AWQ: whole numbers of 4 bits with a scale and a zero for each group of columns.

    "gemm"  X.qweight [in, out / 8] int32, the 8 outputs of a word in the order 0 2 4 6 1 3 5 7
            X.qzeros [groups, out / 8], likewise     X.scales [groups, out]
    "gemv"  X.qweight [out, in / 8] int32, in order  X.qzeros [out, words]     X.scales [out, 8 * words]

The layouts are those of AutoAWQ (`awq/modules/linear`).  "marlin" is in `marlin.py`.  Lin et al. 2023,
https://arxiv.org/abs/2306.00978.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from bestiary_quant.checkpoints import marlin
from bestiary_quant.checkpoints.bits import turn, unpack
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import FLOATS, Group, Stored

_SAME_AS_GEMM = ("gemm", "exllama", "exllamav2", "ipex")
"""The others rearrange the weights after they are loaded."""
_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]
"""Where in a word each of its 8 outputs lies."""


def groups(stored: Stored, settings: Settings) -> Iterator[Group]:
    """The packed weights.  Raises ConfigError for settings out of bounds, CheckpointError for tensors that disagree."""
    version = settings.word("version", of=(*_SAME_AS_GEMM, "gemv", "marlin"), default="gemm")
    if version == "marlin":
        yield from marlin.groups(stored, settings)
        return
    settings.number("bits", "w_bit", of=(4,), default=4)
    size = settings.group_size(128)
    group = _by_rows if version == "gemv" else _by_columns
    for prefix, _ in stored.before(".qweight"):
        yield group(stored, settings, prefix, size)


def _by_columns(stored: Stored, settings: Settings, prefix: str, size: int | None) -> Group:
    weight, scales, zeros = f"{prefix}.qweight", f"{prefix}.scales", f"{prefix}.qzeros"
    stored.dtype(weight, "I32")
    columns, words = stored.shape(weight, 2)
    rows = words * 8
    if scales in stored and stored.shape(scales, 2)[1] == words:
        raise stored.error(f"{weight!r} and {scales!r} have {words} columns each, as GPTQ has it.")
    count = _count(settings, stored, weight, columns, size)
    stored.check(scales, FLOATS, (count, rows))
    stored.check(zeros, ("I32",), (count, words))

    def make(read: Callable[[str], torch.Tensor]) -> CodedMatrix:
        stored_codes = read("codes")

        def panel(part: slice) -> torch.Tensor:
            return _in_order(stored_codes[part])

        codes = Codes(turn(panel, rows, columns, 4, 8, stored_codes.device), 4, columns)
        zero = _in_order(read("zeros")).T.contiguous()
        return CodedMatrix(codes, Scaling(read("scales").T.contiguous(), columns // count, zeros=zero))

    parts = {"codes": weight, "scales": scales, "zeros": zeros}
    return Group(f"{prefix}.weight", "AWQ4", (rows, columns), parts, make)


def _by_rows(stored: Stored, settings: Settings, prefix: str, size: int | None) -> Group:
    weight, scales, zeros = f"{prefix}.qweight", f"{prefix}.scales", f"{prefix}.qzeros"
    stored.dtype(weight, "I32")
    rows, words = stored.shape(weight, 2)
    columns = words * 8
    count = _count(settings, stored, weight, columns, size)
    width = stored.shape(zeros, 2)[1]  # wider than the groups need, for a kernel
    if width * 8 < count:
        raise stored.error(f"{zeros!r} has room for {width * 8} groups, and there are {count}.")
    stored.check(zeros, ("I32",), (rows, width))
    stored.check(scales, FLOATS, (rows, width * 8))

    def make(read: Callable[[str], torch.Tensor]) -> CodedMatrix:
        zero = unpack(read("zeros").view(torch.uint8), 4, count).contiguous()
        scaling = Scaling(read("scales")[:, :count].contiguous(), columns // count, zeros=zero)
        return CodedMatrix(Codes(read("codes").view(torch.uint8), 4, columns), scaling)

    parts = {"codes": weight, "scales": scales, "zeros": zeros}
    return Group(f"{prefix}.weight", "AWQ4", (rows, columns), parts, make)


def _count(settings: Settings, stored: Stored, weight: str, columns: int, size: int | None) -> int:
    run = columns if size is None else size
    if columns % run:
        raise stored.error(
            f"{weight!r} has {columns} columns; the group_size {run} of {settings.where} does not divide them."
        )
    return columns // run


def _in_order(words: torch.Tensor) -> torch.Tensor:
    """The codes [R, 8 * W] of words [R, W] in the order of their outputs."""
    codes = unpack(words.contiguous().view(torch.uint8), 4, words.shape[1] * 8)
    return codes.view(len(words), -1, 8)[:, :, _PLACES].flatten(1)
