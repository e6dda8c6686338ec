"""Marlin: GPTQ weights of 4 bits whose codes and scales lie in the order in which a GPU kernel wants them.

    X.B, in later files X.qweight [in / 16, out * 2] int32     X.s, in later files X.scales [groups, out]

Unpacked again by the permutations of https://github.com/IST-DASLab/marlin (`marlin/__init__.py`, `_get_perms`): four
tiles of 16 x 16 codes side by side make 1024 codes in the order of 32 threads; code 8 is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from bestiary_quant.checkpoints.bits import turn, unpack
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes, centred
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import FLOATS, Group, Stored

_TILE = 16
_WIDE = 64
"""Columns of a row of tiles that are permuted together."""


def groups(stored: Stored, settings: Settings) -> Iterator[Group]:
    """The packed weights.  Raises ConfigError for settings that Marlin lacks, CheckpointError for bad tensors."""
    settings.number("bits", "w_bit", of=(4,), default=4)
    size = settings.group_size(128)
    for prefix, ending in stored.before(".B", ".qweight"):
        yield _group(stored, prefix, ending, size)


def _group(stored: Stored, prefix: str, ending: str, size: int | None) -> Group:
    weight = prefix + ending
    scales = stored.one_of([f"{prefix}.s", f"{prefix}.scales"], weight, "scales")
    stored.dtype(weight, "I32")
    tiles, words = stored.shape(weight, 2)
    count, rows = stored.shape(scales, 2)
    columns = tiles * _TILE
    if words != rows * 2 or rows % _WIDE:
        raise stored.error(
            f"{weight!r} of the shape {[tiles, words]} and {scales!r} of {[count, rows]} are not in the Marlin layout."
        )
    run = columns if size is None else size
    if count != -(-columns // run):
        raise stored.error(f"{scales!r} has {count} groups; {columns} columns in groups of {run} have others.")
    stored.dtype(scales, *FLOATS)
    parts = {"codes": weight, "scales": scales}
    if f"{prefix}.workspace" in stored:  # room that the kernel wants; it says nothing about the weight
        parts["workspace"] = f"{prefix}.workspace"
    foreign = next((name for name in (f"{prefix}.qzeros", f"{prefix}.g_idx") if name in stored), None)
    if foreign:
        raise stored.error(f"{foreign!r} has no place in the Marlin layout, which is symmetric and in order.")

    def make(read: Callable[[str], torch.Tensor]) -> CodedMatrix:
        data = _codes(read("codes"), rows, columns)
        return CodedMatrix(Codes(data, 4, columns, centred(4)), Scaling(_scales(read("scales"), count > 1), run))

    return Group(f"{prefix}.weight", "MARLIN4", (rows, columns), parts, make)


def _codes(words: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    back = torch.tensor(_permutation()).argsort()

    def panel(part: slice) -> torch.Tensor:
        tiles = words[part.start // _TILE : part.stop // _TILE].view(torch.uint8)
        codes = unpack(tiles, 4, rows * _TILE).reshape(-1, len(back))[:, back]
        return codes.view(len(tiles), rows // _TILE, _TILE, _TILE).transpose(1, 2).reshape(-1, rows)

    return turn(panel, rows, columns, 4, _TILE, words.device)


def _scales(scales: torch.Tensor, grouped: bool) -> torch.Tensor:
    if grouped:
        order = [thread + 8 * step for thread in range(8) for step in range(8)]
    else:
        order = [2 * thread + step for thread in range(4) for step in (0, 1, 8, 9, 16, 17, 24, 25)]
    back = torch.tensor(order).argsort()
    return scales.view(-1, len(back))[:, back].view(scales.shape).T.contiguous()


def _permutation() -> list[int]:
    """Where in four tiles each of 1024 codes comes from."""
    order = []
    for thread in range(32):
        own = [
            16 * row + thread // 4 + 8 * half
            for half in (0, 1)
            for row in (2 * (thread % 4) + step for step in (0, 1, 8, 9))
        ]
        order += [place + 256 * tile for tile in range(4) for place in own]
    return [order[start + step] for start in range(0, len(order), 8) for step in (0, 2, 4, 6, 1, 3, 5, 7)]
