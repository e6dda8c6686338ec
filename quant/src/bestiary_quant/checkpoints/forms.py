"""Codes and their scaling as the forms that fast products know (`bestiary.nn.packed.PackedForm`)."""

from __future__ import annotations

import torch

from bestiary.nn.packed import PackedForm
from bestiary_quant.checkpoints.codes import Codes, centred
from bestiary_quant.checkpoints.scaling import Scaling

LINE = 32
"""Columns that a form's scales serve at least, of which rows must be whole."""


def form_of(codes: Codes, scaling: Scaling) -> PackedForm | None:
    """None where the weight has none of the forms."""
    if codes.columns % LINE or scaling.order is not None:
        return None
    scales = _chosen(scaling.scales, scaling).float()
    if scaling.factor is not None:
        factor = scaling.factor
        scales = scales * (factor if factor.ndim == 0 else _chosen(factor, scaling))
    runs = scaling.run % LINE == 0 and codes.columns == scaling.run * scales.shape[1]
    plain = scaling.zeros is None and scaling.offsets is None and codes.table is None
    if codes.data.dtype == torch.int8 and scales.shape[1] == 1 and plain:
        return PackedForm("INT8", {"codes": codes.data, "scales": _for_rows(scales, codes)[:, 0]})
    if codes.data.dtype == torch.float8_e4m3fn and plain and (runs or scales.shape[1] == 1):
        return PackedForm("FLOAT8", {"codes": codes.data, "scales": _for_rows(scales, codes)})
    if codes.data.dtype != torch.uint8 or codes.bits != 4 or codes.table not in (None, centred(4)) or not runs:
        return None
    addends = torch.zeros_like(scales) if codes.table is None else scales * -8.0
    if scaling.zeros is not None:
        addends = addends - _chosen(scaling.zeros, scaling).float() * scales
    if scaling.offsets is not None:
        addends = addends + _chosen(scaling.offsets, scaling).float()
    return PackedForm(
        "INT4", {"codes": codes.data, "scales": _for_rows(scales, codes), "addends": _for_rows(addends, codes)}
    )


def _chosen(tensor: torch.Tensor, scaling: Scaling) -> torch.Tensor:
    """What of a tensor serves each row."""
    return tensor if scaling.band is None else tensor[scaling.band]


def _for_rows(scales: torch.Tensor, codes: Codes) -> torch.Tensor:
    return scales.expand(len(codes.data), -1).contiguous()
