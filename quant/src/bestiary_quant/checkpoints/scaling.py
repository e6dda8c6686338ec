"""How the numbers of codes become those of the weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import gcd

import torch


@dataclass(frozen=True, eq=False)
class Scaling:
    """w = (number - zero) * scale * factor + offset, where a scale serves a run of columns and some of the rows."""

    scales: torch.Tensor
    """[S, G], in any float type."""
    run: int
    """Columns that share a scale; the last run may be shorter."""
    zeros: torch.Tensor | None = None
    """[S, G], in any type."""
    offsets: torch.Tensor | None = None
    """[S, G]."""
    factor: torch.Tensor | None = None
    """One number for all scales, or [S, 1]: a scale of the scales."""
    band: torch.Tensor | None = None
    """[out] int64: which row of scales serves a row of the weight; None: its own."""
    order: torch.Tensor | None = None
    """[in] int64: which column of scales serves a column of the weight, where they are not runs (GPTQ's g_idx)."""

    def apply(self, numbers: torch.Tensor, rows: slice) -> torch.Tensor:
        """The rows of the weight [R, in] of their numbers, which are overwritten."""
        chosen = rows if self.band is None else self.band[rows]
        scales = self.scales[chosen].float()
        if self.factor is not None:
            scales = scales * (self.factor if self.factor.ndim == 0 else self.factor[chosen])
        if self.zeros is not None:
            self._change(numbers, torch.Tensor.sub_, self.zeros[chosen].float())
        self._change(numbers, torch.Tensor.mul_, scales)
        if self.offsets is not None:
            self._change(numbers, torch.Tensor.add_, self.offsets[chosen].float())
        return numbers

    def _change(
        self, numbers: torch.Tensor, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], by: torch.Tensor
    ) -> None:
        columns, groups = numbers.shape[1], by.shape[1]
        if self.order is not None:
            change(numbers, by.index_select(1, self.order))
        elif groups == 1:
            change(numbers, by)
        elif columns == groups * self.run:
            change(numbers.view(-1, groups, self.run), by[..., None])
        else:
            change(numbers, by.repeat_interleave(self.run, 1)[:, :columns])

    def rows(self, index: slice | torch.Tensor) -> Scaling:
        """What serves some rows of the weight."""
        if self.band is not None:
            return replace(self, band=self.band[index])
        factor = self.factor if self.factor is None or self.factor.ndim == 0 else self.factor[index]
        return replace(
            self,
            scales=self.scales[index],
            zeros=None if self.zeros is None else self.zeros[index],
            offsets=None if self.offsets is None else self.offsets[index],
            factor=factor,
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that it holds, by field."""
        fields = ("scales", "zeros", "offsets", "factor", "band", "order")
        return {name: value for name in fields if (value := getattr(self, name)) is not None}

    def to(self, device: torch.device | str) -> Scaling:
        """The same on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]  # only tensors are among them


def along_rows(flat: torch.Tensor, rows: int, columns: int, size: int) -> tuple[torch.Tensor, int]:
    """Scales of runs of `size` in a weight laid out as one line, as [rows, G] for runs within a row, with their length.

    Where a run goes on in the next row, its scale is repeated for shorter ones.
    """
    run = gcd(columns, size)
    if run == size:
        return flat.view(rows, columns // size), size
    starts = torch.arange(0, rows * columns, run, device=flat.device)
    return flat[starts // size].view(rows, columns // run), run
