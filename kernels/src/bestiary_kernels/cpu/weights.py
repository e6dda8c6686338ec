"""Packed weights that lie in panels, and multiply in native code."""

from __future__ import annotations

from hashlib import sha256

import torch
import torch.nn.functional as F

from bestiary.nn.packed import Formed, Packed, PackedForm, PackedWeight
from bestiary_kernels.cpu.library import library
from bestiary_kernels.cpu.linear import PlainWeight, multiply, multiply_plain
from bestiary_kernels.cpu.panel_cache import cached
from bestiary_kernels.cpu.panels import NUMBERS, Panels, pack_blocks, pack_int4, pack_int8, take_rows
from bestiary_kernels.cpu.types import BLOCKS, PANEL


class PanelWeight:
    """A weight [out, in] in panels (a `bestiary.nn.PackedWeight`)."""

    def __init__(self, panels: Panels) -> None:
        self.panels, self.type = panels, panels.type.name
        self.shape: tuple[int, int] = (panels.rows, panels.columns)
        self.nbytes: int = panels.data.numel()

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, in] -> [T, out] in the type of x; x is rounded to int8 with a scale for each 32 of a row."""
        if x.dtype not in NUMBERS:
            return F.linear(x, self.dequantize(x.dtype))
        (y,) = multiply(library(), x, [self.panels], [None], torch.get_num_threads())
        return y

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The weight [out, in] as plain numbers."""
        return self.take(None, dtype)

    def take(self, index: torch.Tensor | None, dtype: torch.dtype, scale: float = 1.0) -> torch.Tensor:
        """Rows `index` [N], or all, as plain numbers, times `scale` in their type."""
        kind = dtype if dtype in NUMBERS else torch.float32
        return take_rows(library(), self.panels, index, kind, torch.get_num_threads(), scale).to(dtype)

    def rows(self, index: slice | torch.Tensor) -> PackedWeight:
        """Some rows, in a new order or repeated."""
        if isinstance(index, slice):
            index = torch.arange(self.shape[0])[index]
        return SomeRows(self, index)

    def to(self, device: torch.device | str) -> PackedWeight:
        """Itself: panels are for the CPU.  Raises NotImplementedError for another device."""
        if torch.device(device).type != "cpu":
            raise NotImplementedError(f"a weight that was packed for the CPU cannot be moved to {device}")
        return self


class SomeRows:
    """Rows of a weight in panels, not yet taken out of it."""

    def __init__(self, weight: PanelWeight, index: torch.Tensor) -> None:
        self.weight, self.index = weight, index
        self.shape: tuple[int, int] = (len(index), weight.shape[1])
        self.nbytes: int = weight.nbytes * len(index) // max(weight.shape[0], 1)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.dequantize(x.dtype))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.weight.take(self.index, dtype)

    def rows(self, index: slice | torch.Tensor) -> PackedWeight:
        return SomeRows(self.weight, self.index[index])

    def to(self, device: torch.device | str) -> PackedWeight:
        self.weight.to(device)
        return self


class Float8Weight:
    """A weight [out, in] of float8 with scales, row by row (a `bestiary.nn.PackedWeight`)."""

    type = "FLOAT8"

    def __init__(self, packed: PackedWeight, plain: PlainWeight) -> None:
        """`packed` is the weight as it was, of which `plain` has the tensors."""
        self.packed, self.plain = packed, plain
        self.shape, self.nbytes = packed.shape, packed.nbytes

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, in] -> [T, out] in the type of x; sums are float32."""
        if x.dtype not in NUMBERS:
            return self.packed.multiply(x)
        (y,) = multiply_plain(library(), x, [self.plain], [None], torch.get_num_threads())
        return y

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.packed.dequantize(dtype)

    def rows(self, index: slice | torch.Tensor) -> PackedWeight:
        return self.packed.rows(index)

    def to(self, device: torch.device | str) -> PackedWeight:
        return self if torch.device(device).type == "cpu" else self.packed.to(device)


class PanelStack:
    """Weights of one shape, the experts of a layer: [experts, out, in] in panels, one expert after another."""

    def __init__(self, panels: Panels, experts: int) -> None:
        """`panels` have the rows of all experts; those of one are whole panels."""
        self.panels, self.type = panels, panels.type.name
        self.shape: tuple[int, int, int] = (experts, panels.rows // experts, panels.columns)
        self.nbytes: int = panels.data.numel()
        each = len(panels.data) // experts
        parts = (panels.data[start : start + each] for start in range(0, len(panels.data), each))
        self.parts = tuple(
            PanelWeight(Panels(part, panels.type, self.shape[1], panels.columns, panels.group)) for part in parts
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, expert: int) -> PanelWeight:
        return self.parts[expert]

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.stack([part.dequantize(dtype) for part in self.parts])

    def to(self, device: torch.device | str) -> PanelStack:
        self.parts[0].to(device)
        return self


def adopt(weight: Packed, source: str | None = None) -> Packed:
    """A packed weight in panels where its form allows, else itself; those of a `source` are kept on disk."""
    if not isinstance(weight, Formed):
        return weight
    form = weight.form()
    if form is None or any(tensor.device.type != "cpu" for tensor in form.tensors.values()):
        return weight
    if len(weight.shape) == 2:
        if form.type == "FLOAT8":
            return _float8(weight, form.ordered())
        panels = _pack(form, source)
        return weight if panels is None else PanelWeight(panels)
    if weight.shape[1] % PANEL or form.type == "FLOAT8":
        return weight
    panels = _pack(PackedForm(form.type, {name: x.flatten(0, 1) for name, x in form.tensors.items()}), source)
    return weight if panels is None else PanelStack(panels, weight.shape[0])


def _pack(form: PackedForm, source: str | None) -> Panels | None:
    threads = torch.get_num_threads()
    if form.type in BLOCKS:
        type, width = BLOCKS[form.type], form.tensors["blocks"].shape[1]

        def make() -> Panels:
            return pack_blocks(library(), form.ordered().tensors["blocks"], type, threads)

        if source is None:
            return make()
        if form.order is None:
            return cached(source, type, len(form.tensors["blocks"]), width, make)
        order = sha256(form.order.numpy().tobytes()).hexdigest()  # another one would be other panels
        return cached(f"{source} {order}", type, len(form.order), width, make)
    tensors = form.ordered().tensors
    if form.type == "INT8":
        return pack_int8(library(), tensors["codes"], tensors["scales"], threads)
    if form.type == "INT4":
        codes = _halves_apart(tensors["codes"])
        return pack_int4(library(), codes, tensors["scales"], tensors["addends"], threads)
    return None


def _halves_apart(codes: torch.Tensor) -> torch.Tensor:
    """Of bytes of two neighbours each [out, in / 2], those of columns i and i + 16 of every 32."""
    pairs = codes.reshape(len(codes), -1, 16)
    wide = torch.stack((pairs & 15, pairs >> 4), -1).flatten(2)  # [out, runs, 32]
    return (wide[..., :16] | wide[..., 16:] << 4).flatten(1).contiguous()


def _float8(weight: PackedWeight, form: PackedForm) -> PackedWeight:
    codes, scales = form.tensors["codes"], form.tensors["scales"]
    run = -(-codes.shape[1] // scales.shape[1])
    return Float8Weight(weight, PlainWeight(codes, scales, (1, run)))
