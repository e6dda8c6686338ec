"""compressed-tensors, the format of llm-compressor: each weight as its tensors show it.

    pack-quantized   X.weight_packed [out, in * bits / 32] int32, code 2^(bits - 1) is zero     X.weight_scale
                     X.weight_shape [2], and perhaps X.weight_zero_point packed down its columns, X.weight_g_idx [in]
    nvfp4, mxfp4     X.weight_packed uint8     X.weight_scale     X.weight_global_scale, which divides scales of NVFP4
    the others       X.weight int8 or float8   X.weight_scale     perhaps X.weight_zero_point

`config_groups` says what was meant, for modules that patterns name.  A pattern from a file could run for ever, and the
tensors say all that is needed: so no pattern is run, and a weight must be what one of the groups says.  From
`compressed_tensors/compressors` (0.20).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from bestiary.errors import shown
from bestiary_quant.checkpoints.bits import row_bytes, unpack
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.codes import Codes, centred
from bestiary_quant.checkpoints.float4 import float4_group
from bestiary_quant.checkpoints.gptq import group_order
from bestiary_quant.checkpoints.scaled import scaled_group
from bestiary_quant.checkpoints.scaling import Scaling
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import FLOAT8, FLOATS, Group, Stored

_FORMATS = (
    *("dense", "naive-quantized", "int-quantized", "float-quantized", "pack-quantized", "mixed-precision"),
    *("nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp6-pack-quantized", "mxfp8-quantized"),
)
_INPUTS = ("input_scale", "input_global_scale")
Scheme = Mapping[str, Any]
"""What one group of the configuration says of weights."""


def groups(stored: Stored, settings: Settings) -> Iterator[Group]:
    """The packed weights.  Raises ConfigError for formats that are not read, CheckpointError for bad tensors."""
    settings.word("format", of=_FORMATS, default="dense")
    if settings.get("transform_config"):
        raise settings.error('"transform_config" turns weights and activations, which is not read here.')
    schemes = _schemes(settings)
    for prefix, _ in stored.before(".weight_packed"):
        name = f"{prefix}.weight_packed"
        if stored.dtype(name, "I32", "U8") == "I32":
            yield _packed(stored, settings, prefix, schemes)
        else:
            factor = f"{prefix}.weight_global_scale"
            yield float4_group(
                stored,
                f"{prefix}.weight",
                name,
                f"{prefix}.weight_scale",
                factor=factor if factor in stored else None,
                divides=True,
                inputs=[f"{prefix}.{word}" for word in _INPUTS],
                beside=[f"{prefix}.input_zero_point"],
            )
    for prefix, _ in stored.before(".weight"):
        name = f"{prefix}.weight"
        kind = stored.checkpoint.dtype(name)
        if kind in (*FLOAT8, "I8"):
            yield scaled_group(
                stored,
                settings,
                name,
                stored.one_of([f"{prefix}.weight_scale"], name, "scale"),
                zero=f"{prefix}.weight_zero_point",
                inputs=[f"{prefix}.{word}" for word in _INPUTS],
                beside=[f"{prefix}.input_zero_point"],
                block=_block(schemes, "int" if kind == "I8" else "float"),
            )


def _packed(stored: Stored, settings: Settings, prefix: str, schemes: tuple[Scheme, ...]) -> Group:
    name, scale = f"{prefix}.weight_packed", f"{prefix}.weight_scale"
    rows, words = stored.shape(name, 2)
    columns = _columns(stored, prefix, rows, words)
    said = [scheme.get("num_bits", 8) for scheme in schemes]
    fitting = [bits for bits in range(1, 9) if -(-columns * bits // 32) == words]
    if not fitting:
        raise stored.error(f"{name!r} has {words} words in a row; {columns} columns fill them with no number of bits.")
    bits = next((bits for bits in fitting if bits in said), fitting[0])  # narrow weights fit several
    stored.dtype(scale, *FLOATS)
    given = stored.shape(scale, 0, 1, 2)
    high, count = given if len(given) == 2 else (*given, 1, 1)[:2]
    if high not in (1, rows) or columns % count:
        raise stored.error(f"{scale!r} has the shape {list(given)}, and its weight [{rows}, {columns}].")
    _agree(stored, settings, name, schemes, bits, columns // count if count > 1 else None)
    parts = {"codes": name, "scales": scale}
    zero, order = f"{prefix}.weight_zero_point", f"{prefix}.weight_g_idx"
    if zero in stored:
        # Packed zeros go down the columns, so that each row has its own.
        packed = stored.dtype(zero, *(("I32", "I8") if high == rows else ("I8",))) == "I32"
        stored.check(zero, ("I32", "I8"), (-(-rows * bits // 32), count) if packed else given)
        parts["zeros"] = zero
    if order in stored:
        stored.check(order, ("I32", "I64"), (columns,))
        parts["order"] = order
    activations = list(stored.present(f"{prefix}.{word}" for word in _INPUTS))
    parts.update(stored.present((*activations, f"{prefix}.weight_shape", f"{prefix}.input_zero_point")))

    def make(read: Callable[[str], torch.Tensor]) -> CodedMatrix:
        place = read("order") if "order" in parts else None
        if place is not None and bool((place == -1).all()):  # what is stored where no order was made
            place = None
        scaling = Scaling(
            read("scales").reshape(high, count),
            columns // count,
            zeros=_zeros(read("zeros"), bits, rows).reshape(high, count) if "zeros" in parts else None,
            band=torch.zeros(rows, dtype=torch.int64) if high < rows else None,
            order=None if place is None else group_order(stored, order, place, count, columns // count),
        )
        data = read("codes").view(torch.uint8)[:, : row_bytes(columns, bits)]
        held = read(activations[0]) if activations else None
        return CodedMatrix(Codes(data, bits, columns, centred(bits)), scaling, held)

    return Group(f"{prefix}.weight", f"INT{bits}", (rows, columns), parts, make)


def _columns(stored: Stored, prefix: str, rows: int, words: int) -> int:
    name, packed = f"{prefix}.weight_shape", f"{prefix}.weight_packed"
    stored.dtype(name, "I64", "I32")
    given = stored.small(name, 64).flatten().tolist()
    if len(given) != 2 or given[0] != rows or not 1 <= given[1] <= 32 * words:
        raise stored.error(f"{name!r} says {given}, and {packed!r} has {rows} rows of {words} words.")
    return int(given[1])


def _zeros(zeros: torch.Tensor, bits: int, rows: int) -> torch.Tensor:
    """Zeros as numbers around 0, int8."""
    if zeros.dtype == torch.int8:
        return zeros
    codes = unpack(zeros.T.contiguous().view(torch.uint8), bits, rows)
    return (codes.T.to(torch.int16) - (1 << bits - 1)).to(torch.int8)


def _schemes(settings: Settings) -> tuple[Scheme, ...]:
    """What the groups say of weights; nothing where one is only the name of a preset.  Raises ConfigError."""
    stated = settings.get("config_groups")
    if not isinstance(stated, Mapping | None):
        raise settings.error(f'"config_groups" is {shown(stated)}; an object is due.')
    found = []
    for key, group in (stated or {}).items():
        if not isinstance(group, Mapping):
            return ()
        weights = group.get("weights") or {}
        if not isinstance(weights, Mapping):
            raise settings.error(f'"weights" of "{key}" is {shown(weights)}; an object is due.')
        own = Settings(weights, f'{settings.where}, config_groups, "{key}"')
        own.number("num_bits", of=range(1, 17), default=8)
        own.word("type", of=("int", "float"), default="int")
        own.group_size(None)
        own.block("block_structure")
        found.append(weights)
    return tuple(found)


def _block(schemes: tuple[Scheme, ...], kind: str) -> tuple[int, int] | None:
    """The blocks of weights of a kind, where all groups agree."""
    stated = {tuple(scheme.get("block_structure") or ()) for scheme in schemes if scheme.get("type", "int") == kind}
    rows_columns = stated.pop() if len(stated) == 1 else ()
    return (rows_columns[0], rows_columns[1]) if rows_columns else None


def _agree(
    stored: Stored, settings: Settings, name: str, schemes: tuple[Scheme, ...], bits: int, size: int | None
) -> None:
    """Raises CheckpointError where no group of the configuration says what the tensors show."""
    said = [(scheme.get("num_bits", 8), scheme.get("group_size")) for scheme in schemes]
    if said and not any(number == bits and (size is None or run == size) for number, run in said):
        shows = f"{bits} bits with a scale for {'a row' if size is None else f'{size} columns'}"
        stated = ", ".join(f"{number} bits with group_size {run}" for number, run in said[:5])
        raise stored.error(f"{name!r} has {shows}; config_groups of {settings.where} says {stated}.")
