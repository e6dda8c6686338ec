"""Packed weights that stay in the bytes of their file, and multiply in Triton kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from bestiary.nn.packed import Formed, Packed, PackedForm
from bestiary_kernels.triton.devices import on_device_of, runs_on, takes

if TYPE_CHECKING:
    from bestiary_kernels.triton.weight import Weight

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        **{name: name for name in ("Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "MXFP4")},
        "INT4": "int4",
        "FLOAT8": "float8_rows",
    }
)
"""Types of a `PackedForm`, and what the kernels call them."""

PANEL = 1 << 24
"""Numbers dequantised at a time: 64 MB of float32, and a few times that on the way."""


class TritonWeight:
    """A weight [out, in] (a `bestiary.nn.PackedWeight`)."""

    def __init__(self, weight: Weight, type: str) -> None:
        """`type` is that of its `PackedForm`."""
        rows, columns = weight.shape
        self.weight, self.type = weight, type
        self.shape: tuple[int, int] = (rows, columns)
        self.nbytes: int = weight.nbytes

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, in] -> [T, out] in the type of x, of sums in float32.

        Up to 8 rows are multiplied by the numbers in float32, more by those in the type of x, as plain torch does.
        """
        if torch.compiler.is_compiling():
            told = self.weight.codes, self.weight.scales, self.weight.addends, self.weight.format
            return torch.ops.bestiary_triton.linear(x, *told)  # type: ignore[no-any-return]
        if not takes(x):
            return F.linear(x, self.dequantize(x.dtype))
        from bestiary_kernels.triton.linear import linear

        with on_device_of(x):
            return linear(x, self.weight)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The weight [out, in] as plain numbers."""
        count, columns = self.shape
        step = max(1, PANEL // columns)
        if count <= step:
            return self.weight.dequantize(dtype)
        made = torch.empty(self.shape, dtype=dtype, device=self.weight.codes.device)
        for start in range(0, count, step):
            rows = slice(start, start + step)
            made[rows] = self.rows(rows).dequantize()
        return made

    def rows(self, index: slice | torch.Tensor) -> TritonWeight:
        """Some rows, in a new order or repeated: a view for a slice, else a copy."""
        return TritonWeight(_changed(self.weight, lambda part: part[index]), self.type)

    def to(self, device: torch.device | str) -> TritonWeight:
        """The same on another device; where no kernels run it multiplies in plain torch."""
        return TritonWeight(_changed(self.weight, lambda part: part.to(device)), self.type)

    def form(self) -> PackedForm:
        return _form(self.weight, self.type)


class TritonStack:
    """Weights of one shape, the experts of a layer: [experts, out, in] (a `bestiary.nn.PackedStack`)."""

    def __init__(self, weight: Weight, type: str) -> None:
        """`type` is that of its `PackedForm`."""
        experts, rows, columns = weight.shape
        self.weight, self.type = weight, type
        self.shape: tuple[int, int, int] = (experts, rows, columns)
        self.nbytes: int = weight.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, expert: int) -> TritonWeight:
        """One of them, a view."""
        return TritonWeight(_changed(self.weight, lambda part: part[expert]), self.type)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """All of them [experts, out, in] as plain numbers."""
        made = torch.empty(self.shape, dtype=dtype, device=self.weight.codes.device)
        for expert in range(len(self)):
            made[expert] = self[expert].dequantize(dtype)
        return made

    def to(self, device: torch.device | str) -> TritonStack:
        """The same on another device."""
        return TritonStack(_changed(self.weight, lambda part: part.to(device)), self.type)

    def form(self) -> PackedForm:
        return _form(self.weight, self.type)


def adopt(weight: Packed) -> Packed:
    """A packed weight as the kernels read it, where its form allows, else itself."""
    form = weight.form() if isinstance(weight, Formed) else None
    if form is None or form.type not in FORMATS or any(not runs_on(part.device) for part in form.tensors.values()):
        return weight
    from bestiary_kernels.triton import compiled  # noqa: F401  # torch learns of the operation
    from bestiary_kernels.triton.weight import Weight

    form = form.ordered()
    codes = form.tensors["blocks" if "blocks" in form.tensors else "codes"]
    parts = codes.view(torch.uint8), form.tensors.get("scales"), form.tensors.get("addends")
    try:
        held = Weight(FORMATS[form.type], *(None if part is None else _tidy(part) for part in parts))  # type: ignore[arg-type]
    except ValueError:  # the kernels have no such groups, or there is nothing to multiply
        return weight
    return TritonWeight(held, form.type) if len(held.shape) == 2 else TritonStack(held, form.type)


def _tidy(part: torch.Tensor) -> torch.Tensor:
    """Contiguous, and from an address at which words can be read: itself where it is so already."""
    part = part.contiguous()
    return part if part.data_ptr() % 4 == 0 else part.clone()


def _changed(weight: Weight, change: Callable[[torch.Tensor], torch.Tensor]) -> Weight:
    """The weight of changed parts."""
    from bestiary_kernels.triton.weight import Weight

    parts = weight.codes, weight.scales, weight.addends
    codes, scales, addends = (None if part is None else change(part).contiguous() for part in parts)
    assert codes is not None
    return Weight(weight.format, codes, scales, addends)


def _form(weight: Weight, type: str) -> PackedForm:
    if weight.scales is None:
        return PackedForm(type, {"blocks": weight.codes})
    codes = weight.codes.view(torch.float8_e4m3fn) if type == "FLOAT8" else weight.codes
    tensors = {"codes": codes, "scales": weight.scales}
    return PackedForm(type, tensors if weight.addends is None else {**tensors, "addends": weight.addends})
