"""A weight as the entries of its layer: what `families.py` reads, written.

Data is handed over some rows at a time, on the CPU, so that a large weight is never copied whole; HQQ alone is laid out
anew and needs its codes once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType

import torch

from bestiary.errors import OptionError
from bestiary.nn.packed import Packed, PackedList
from bestiary_quant.blocks.types import BlockType
from bestiary_quant.checkpoints.bits import unpack
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack
from bestiary_quant.checkpoints.float4 import E2M1
from bestiary_quant.packed import PackedMatrix, PackedStack
from bestiary_quant.uqff import form
from bestiary_quant.uqff.hqq import laid

SAFETENSORS: Mapping[torch.dtype, str] = MappingProxyType(
    {
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.uint8: "U8",
        torch.uint32: "U32",
    }
)
_CHUNK = 16 << 20


@dataclass(frozen=True)
class Piece:
    """One entry: its name, type and shape, and its bytes in some tensors one behind the other."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    chunks: Callable[[], Iterator[torch.Tensor]]

    @property
    def describes(self) -> bool:
        """Whether it is a scalar or a short list."""
        return self.nbytes <= 12


def plain(name: str, tensor: torch.Tensor) -> Piece:
    """A tensor as it is.  Raises OptionError for a type that is neither float16, bfloat16 nor float32."""
    kind = SAFETENSORS.get(tensor.dtype, "")
    if kind not in ("F32", "F16", "BF16"):
        raise OptionError(f"{name} is a tensor of {tensor.dtype}, which UQFF does not hold.")
    return Piece(name, kind, tuple(tensor.shape), tensor.nbytes, lambda: _rows([tensor]))


def pieces(key: str, weight: torch.Tensor | Packed) -> tuple[Piece, ...]:
    """The entries of the layer `key`.  Raises OptionError for a packing that UQFF has no family for."""
    name = f"{key}.weight"
    if isinstance(weight, torch.Tensor):
        return _described(name, form.UNQUANT, (plain(name, weight),))
    members, shape = _members(weight), tuple(weight.shape)
    blocks = [member for member in members if isinstance(member, PackedMatrix)]
    coded = [member for member in members if isinstance(member, CodedMatrix)]
    if members and len(blocks) == len(members) and len({member.kind for member in blocks}) == 1:
        made = _of_blocks(name, blocks, shape)
    elif members and len(coded) == len(members):
        made = next((found for write in _CODED if (found := write(name, coded, shape))), None)
    else:
        made = None
    if made is None:
        raise OptionError(
            f"{name} is packed in a way that UQFF has no form for: {_kinds(members)}.",
            fix="choose q4_0 to q8k, afq2 to afq8 or mxfp4; for what is no stack also hqq4, hqq8, fp8 or f8q8",
        )
    return made


def _of_blocks(name: str, members: Sequence[PackedMatrix], shape: tuple[int, ...]) -> tuple[Piece, ...] | None:
    kind, nbytes = members[0].kind, sum(member.nbytes for member in members)
    whole = Piece(name, "U8", (nbytes,), nbytes, lambda: _rows([member.data for member in members]))
    if kind.name == "F8Q8" and len(shape) == 2:
        count = _u32(f"{name}.num_blocks", [nbytes // kind.nbytes])
        return _described(name, form.F8Q8, (whole, count, _u32(f"{name}.shape", shape, listed=True)))
    if kind.name == "MXFP4":
        return _mxfp4_blocks(name, members, shape)
    if kind.code not in form.GGML:
        return None
    code = _u32(f"{name}.dtype", [kind.code])
    return _described(name, form.GGUF, (whole, code, _u32(f"{name}.shape", shape, listed=True)))


def _mxfp4_blocks(name: str, members: Sequence[PackedMatrix], shape: tuple[int, ...]) -> tuple[Piece, ...]:
    """ggml has the scale before each 16 bytes, and byte i holds the codes i and i + 16."""
    *front, columns = shape
    kind: BlockType = members[0].kind

    def parted(take: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[torch.Tensor]:
        for rows in _rows([member.data for member in members]):
            yield take(rows.view(-1, kind.nbytes))

    def codes(blocks: torch.Tensor) -> torch.Tensor:
        low, high = blocks[:, 1:] & 15, blocks[:, 1:] >> 4
        ordered = torch.cat((low, high), 1)
        return ordered[:, ::2] | ordered[:, 1::2] << 4

    weight = _piece(name, "U8", (*front, columns // 2), 1, partial(parted, codes))
    scales = _piece(f"{name}.scales", "U8", (*front, columns // 32), 1, partial(parted, lambda blocks: blocks[:, 0]))
    return _described(name, form.MXFP4, (weight, scales))


def _afq(name: str, members: Sequence[CodedMatrix], shape: tuple[int, ...]) -> tuple[Piece, ...] | None:
    codes, run = members[0].codes, members[0].scaling.run
    alike = {(m.codes.bits, m.codes.data.dtype, m.codes.table, m.scaling.run) for m in members}
    held = all(set(m.scaling.tensors()) == {"scales", "offsets"} for m in members)
    if alike != {(codes.bits, torch.uint8, None, run)} or not held or shape[-1] % run:
        return None
    if codes.bits not in form.AFQ_BITS or run not in form.AFQ_GROUPS:
        return None
    weight = _piece(name, "U32", (*shape[:-1], shape[-1] * codes.bits // 32), 4, lambda: _data(members))
    counts, dtype = (*shape[:-1], shape[-1] // run), _widest(members)
    scales = _piece(
        f"{name}.scales",
        SAFETENSORS[dtype],
        counts,
        dtype.itemsize,
        lambda: _rows(m.scaling.scales.to(dtype) for m in members),
    )
    biases = _piece(
        f"{name}.biases",
        SAFETENSORS[dtype],
        counts,
        dtype.itemsize,
        lambda: _rows(m.scaling.tensors()["offsets"].to(dtype) for m in members),
    )
    described = (_u8(f"{name}.bits", codes.bits), _u8(f"{name}.group_size", run))
    return _described(name, form.AFQ, (weight, scales, biases, *described))


def _mxfp4(name: str, members: Sequence[CodedMatrix], shape: tuple[int, ...]) -> tuple[Piece, ...] | None:
    for member in members:
        scaling = member.scaling
        if member.codes.table != E2M1 or member.codes.bits != 4 or scaling.run != 32 or shape[-1] % 32:
            return None
        if set(scaling.tensors()) != {"scales"} or scaling.scales.dtype != torch.float8_e8m0fnu:
            return None
    weight = _piece(name, "U8", (*shape[:-1], shape[-1] // 2), 1, lambda: _data(members))
    scales = _piece(
        f"{name}.scales",
        "U8",
        (*shape[:-1], shape[-1] // 32),
        1,
        lambda: _rows(m.scaling.scales.view(torch.uint8) for m in members),
    )
    return _described(name, form.MXFP4, (weight, scales))


def _fp8(name: str, members: Sequence[CodedMatrix], shape: tuple[int, ...]) -> tuple[Piece, ...] | None:
    member = members[0]
    held = set(member.scaling.tensors()) - {"band"}
    if len(shape) != 2 or member.codes.data.dtype != torch.float8_e4m3fn or held != {"scales"}:
        return None
    if member.scaling.scales.numel() != 1:
        return None
    scale = float(member.scaling.scales)
    weight = _piece(name, "F8_E4M3", shape, 1, lambda: _data(members))
    scales = [_f32(f"{name}.{role}", scale) for role in ("dequant_w_scale", "dequant_x_scale")]
    inverse = _f32(f"{name}.quant_scale", 1 / scale if scale else 0.0)
    return _described(name, form.FP8, (weight, *scales, inverse, _u32(f"{name}.dtype", [form.F8_E4M3])))


def _hqq(name: str, members: Sequence[CodedMatrix], shape: tuple[int, ...]) -> tuple[Piece, ...] | None:
    """Groups down the weight.  Offsets become zeros, so that numbers move by the rounding of a division."""
    member = members[0]
    codes, scaling, held = member.codes, member.scaling, set(member.scaling.tensors())
    if len(shape) != 2 or codes.bits not in (4, 8) or codes.table is not None or codes.data.dtype != torch.uint8:
        return None
    if held not in ({"scales", "zeros", "band"}, {"scales", "offsets", "band"}) or scaling.run != 1:
        return None
    (out, columns), count = shape, len(scaling.scales)
    band = torch.arange(out) % count
    if scaling.band is None or out % count or (out // count) % 2 or not torch.equal(scaling.band.cpu(), band):
        return None
    if "zeros" in held:
        scales, zeros = scaling.scales, scaling.tensors()["zeros"].to(scaling.scales.dtype)
    else:
        scales = scaling.scales.float()
        zeros = -scaling.tensors()["offsets"].float() / scales
    size = out // count

    def elements() -> Iterator[torch.Tensor]:
        yield laid(unpack(codes.data, codes.bits, columns), codes.bits, size)

    steps, width, kind = (size if codes.bits == 8 else size // 2), count * columns, SAFETENSORS[scales.dtype]
    return _described(
        name,
        form.HQQ,
        (
            _piece(name, "U8", (steps, width), 1, elements),
            _piece(f"{name}.scales", kind, (1, width), scales.itemsize, lambda: _rows([scales])),
            _piece(f"{name}.zeros", kind, (1, width), zeros.itemsize, lambda: _rows([zeros])),
            _u32(f"{name}.shape", shape, listed=True),
            _u8(f"{name}.bits", codes.bits),
            _u32(f"{name}.group_size", [size]),
            _u8(f"{name}.axis", 0),
            _u32(f"{name}.optimization_steps", [0]),  # how the codes were found, which nobody asks when reading
            _u8(f"{name}.round_zeros", 0),
            _u8(f"{name}.channel_wise", 1),
        ),
    )


_CODED = (_afq, _mxfp4, _fp8, _hqq)


def _members(weight: Packed) -> list[object]:
    """The matrices of which it is made, whose rows lie one below the other."""
    if isinstance(weight, PackedStack):
        return [PackedMatrix(weight.data.flatten(0, 1), weight.kind)]
    if isinstance(weight, CodedStack):
        return [weight.matrix]
    return list(weight.parts) if isinstance(weight, PackedList) else [weight]


def _kinds(members: Iterable[object]) -> str:
    names = {m.kind.name if isinstance(m, PackedMatrix) else type(m).__name__ for m in members}
    return ", ".join(sorted(names))


def _widest(members: Sequence[CodedMatrix]) -> torch.dtype:
    """The type of scales and offsets alike, as mistral.rs wants them."""
    kinds = {tensor.dtype for m in members for tensor in (m.scaling.scales, m.scaling.tensors()["offsets"])}
    return kinds.pop() if len(kinds) == 1 else torch.float32


def _described(name: str, family: int, made: tuple[Piece, ...]) -> tuple[Piece, ...]:
    return (*made, _u8(f"{name}.format", family))


def _piece(
    name: str, kind: str, shape: tuple[int, ...], itemsize: int, chunks: Callable[[], Iterator[torch.Tensor]]
) -> Piece:
    return Piece(name, kind, shape, prod(shape) * itemsize, chunks)


def _u8(name: str, value: int) -> Piece:
    return Piece(name, "U8", (), 1, lambda: iter([torch.tensor(value, dtype=torch.uint8)]))


def _f32(name: str, value: float) -> Piece:
    return Piece(name, "F32", (), 4, lambda: iter([torch.tensor(value, dtype=torch.float32)]))


def _u32(name: str, values: Sequence[int], *, listed: bool = False) -> Piece:
    shape = (len(values),) if listed else ()
    return Piece(name, "U32", shape, 4 * len(values), lambda: iter([torch.tensor(values, dtype=torch.int32)]))


def u32(name: str, value: int) -> Piece:
    """A scalar."""
    return _u32(name, [value])


def _data(members: Sequence[CodedMatrix]) -> Iterator[torch.Tensor]:
    return _rows(member.codes.data for member in members)


def _rows(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    for tensor in tensors:
        if tensor.ndim == 0:
            yield tensor.detach().cpu()
            continue
        step = max(1, _CHUNK // max(1, tensor[:1].nbytes))
        for start in range(0, len(tensor), step):
            yield tensor.detach()[start : start + step].cpu().contiguous()
