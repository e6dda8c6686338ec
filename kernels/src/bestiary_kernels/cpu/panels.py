"""Weights in panels of 16 rows, the layout that the products read.

A panel has every 4-byte word of its rows' blocks beside the same word of the other rows, so that a lane of a vector is
a row.  It is the same bytes in another order: packing loses nothing, and takes no memory more but for the last panel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bestiary_kernels.cpu.library import Library, packer
from bestiary_kernels.cpu.types import INT4, INT8, PANEL, PanelType

_PACK, _UNPACK, _ROWS = 0, 1, 2
_pack_arguments = packer("7q")
_rows_arguments = packer("10qd")

NUMBERS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Types of plain numbers as the library counts them."""


@dataclass(frozen=True)
class Panels:
    """A weight [rows, columns] in panels."""

    data: torch.Tensor
    """[panels, bytes] uint8."""
    type: PanelType
    rows: int
    columns: int
    group: int = 0
    """Columns that share a scale, where the type is scaled."""


def pack_blocks(library: Library, blocks: torch.Tensor, type: PanelType, threads: int) -> Panels:
    """Panels from rows of blocks [rows, row bytes] uint8, as GGUF files have them."""
    rows, width = blocks.shape
    columns = width // type.nbytes * type.columns
    data = torch.empty(-(-rows // PANEL), type.panel(columns), dtype=torch.uint8)
    _move(library, _PACK, blocks, data, type, threads)
    return Panels(data, type, rows, columns)


def unpack_blocks(library: Library, panels: Panels, threads: int) -> torch.Tensor:
    """The rows of blocks [rows, row bytes] uint8 that the panels were packed from; of INT8 and INT4, the codes."""
    type = panels.type
    blocks = torch.empty(panels.rows, panels.columns // type.columns * type.nbytes, dtype=torch.uint8)
    _move(library, _UNPACK, blocks, panels.data, type, threads)
    return blocks


def pack_int8(library: Library, codes: torch.Tensor, scales: torch.Tensor, threads: int) -> Panels:
    """Panels from codes [rows, columns] int8, columns a multiple of 32, and float32 scales [rows]."""
    rows, columns = codes.shape
    data = torch.zeros(-(-rows // PANEL), INT8.panel(columns), dtype=torch.uint8)
    _move(library, _PACK, codes.contiguous().view(torch.uint8), data, INT8, threads)
    data[:, : PANEL * 4] = _padded(scales[:, None]).view(-1, PANEL).view(torch.uint8)
    return Panels(data, INT8, rows, columns)


def pack_int4(
    library: Library, codes: torch.Tensor, scales: torch.Tensor, addends: torch.Tensor, threads: int
) -> Panels:
    """Panels from codes [rows, columns / 2] uint8 and float32 scales and addends [rows, groups]: a code times its
    scale, and the addend.

    Of each 16 bytes of codes, byte i has columns i (its low half) and i + 16 of 32.
    """
    rows, columns = codes.shape[0], codes.shape[1] * 2
    group = columns // scales.shape[1]
    data = torch.zeros(-(-rows // PANEL), INT4.panel(columns, group), dtype=torch.uint8)
    _move(library, _PACK, codes, data, INT4, threads)
    both = torch.stack((_padded(scales), _padded(addends)), 1).view(-1, PANEL, 2, scales.shape[1])
    tail = both.permute(0, 3, 2, 1).reshape(len(data), -1).contiguous()
    data[:, PANEL * columns // 2 :] = tail.view(torch.uint8)
    return Panels(data, INT4, rows, columns, group)


def take_rows(
    library: Library, panels: Panels, index: torch.Tensor | None, dtype: torch.dtype, threads: int, scale: float = 1.0
) -> torch.Tensor:
    """Rows `index` [N] int64 as plain numbers [N, columns], times `scale`; of None all."""
    count = panels.rows if index is None else len(index)
    y = torch.empty(count, panels.columns, dtype=dtype)
    library.call(_ROWS, rows_arguments(panels, index, y, scale), threads)
    return y


def rows_arguments(panels: Panels, index: torch.Tensor | None, y: torch.Tensor, scale: float) -> bytes:
    """What the library is given to write rows to y [N, columns]."""
    return _rows_arguments(
        panels.type.number,
        panels.data.data_ptr(),
        panels.rows,
        panels.columns,
        panels.group,
        0 if index is None else index.data_ptr(),
        len(y),
        y.data_ptr(),
        NUMBERS[y.dtype],
        y.stride(0),
        scale,
    )


def _move(
    library: Library, operation: int, blocks: torch.Tensor, data: torch.Tensor, type: PanelType, threads: int
) -> None:
    assert blocks.dtype == data.dtype == torch.uint8 and blocks.stride(1) == data.stride(1) == 1
    count = blocks.shape[1] // type.nbytes
    arguments = _pack_arguments(
        type.number, len(blocks), count, blocks.data_ptr(), blocks.stride(0), data.data_ptr(), data.stride(0)
    )
    library.call(operation, arguments, threads)


def _padded(numbers: torch.Tensor) -> torch.Tensor:
    """[rows, any] in float32, with rows of zeros up to a whole panel."""
    missing = -len(numbers) % PANEL
    return torch.nn.functional.pad(numbers.float(), (0, 0, 0, missing)).contiguous()
