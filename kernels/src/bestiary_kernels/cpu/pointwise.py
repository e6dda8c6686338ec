"""Norms, sums, gates and rotations of float32, bfloat16 and float16, rounded wherever plain torch rounds.

Tensors that an operation writes lie row by row without gaps; those that it reads may be views, of whose dimensions the
last lies without gaps.  All tensors of a call are of one type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from bestiary_kernels.cpu.library import Library, packer
from bestiary_kernels.cpu.panels import NUMBERS

RMS_NORM, ADD_RMS_NORM, ADD, GATED, ROTATE = 5, 6, 7, 8, 9
LAYER_NORM, ACTIVATE = 14, 15

ACTIVATIONS: Mapping[str, int] = MappingProxyType(
    {
        "silu": 0,
        "swish": 0,
        "gelu": 1,
        "gelu_new": 2,
        "gelu_fast": 2,
        "gelu_pytorch_tanh": 2,
        "relu": 3,
    }
)
"""Activations by the names that configurations use, as the library counts them."""

Kept = list[torch.Tensor]
"""What the arguments have the addresses of."""

_pack_norm = packer("8q2dq")
_pack_add_norm = packer("8q2d2q")
_pack_add = packer("8q")
_pack_gated = packer("9q")
_pack_layer_norm = packer("7qdq")
_pack_activated = packer("7q")
_pack_rotate = packer("20q")
_NO_HEADS = (0, 0, 0, 0, 0)


def rms_norm(
    library: Library, x: torch.Tensor, weight: torch.Tensor, epsilon: float, offset: float, threads: int
) -> torch.Tensor:
    """x [T, D] or [T, H, D] over its root mean square, times offset + weight [D].

    With an offset it is rounded once; without, before the weight multiplies too (as `bestiary.nn.norm.RMSNorm`).
    """
    y = x.new_empty(x.shape)
    arguments, kept = rms_norm_arguments(x, weight, epsilon, offset, y)
    library.call(RMS_NORM, arguments, threads)
    del kept
    return y


def rms_norm_arguments(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float, offset: float, y: torch.Tensor
) -> tuple[bytes, Kept]:
    """What the library is given to write y, of the shape of x."""
    _one_type(x, weight, y)
    inner, stride = (1, 0) if x.dim() == 2 else (x.shape[1], x.stride(1))
    columns = x.shape[-1]
    arguments = _pack_norm(
        x.data_ptr(),
        NUMBERS[x.dtype],
        len(x) * inner,
        columns,
        inner,
        x.stride(0),
        stride,
        weight.data_ptr(),
        epsilon,
        offset,
        y.data_ptr(),
    )
    return arguments, [x, weight, y]


def layer_norm(
    library: Library, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, epsilon: float, threads: int
) -> torch.Tensor:
    """x [T, D] less its mean, over its deviation, times weight [D] plus bias [D]; rounded once."""
    y = x.new_empty(x.shape)
    arguments, kept = layer_norm_arguments(x, weight, bias, epsilon, y)
    library.call(LAYER_NORM, arguments, threads)
    del kept
    return y


def layer_norm_arguments(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, epsilon: float, y: torch.Tensor
) -> tuple[bytes, Kept]:
    """What the library is given to write y [T, D]."""
    kept = [x, weight, y] if bias is None else [x, weight, y, bias]
    _one_type(*kept)
    place = 0 if bias is None else bias.data_ptr()
    arguments = _pack_layer_norm(
        x.data_ptr(), NUMBERS[x.dtype], *x.shape, x.stride(0), weight.data_ptr(), place, epsilon, y.data_ptr()
    )
    return arguments, kept


def activated(library: Library, x: torch.Tensor, activation: str, threads: int) -> torch.Tensor:
    """activation(x) of x [T, D]; the activation is one of ACTIVATIONS."""
    y = x.new_empty(x.shape)
    arguments, kept = activated_arguments(x, activation, y)
    library.call(ACTIVATE, arguments, threads)
    del kept
    return y


def activated_arguments(x: torch.Tensor, activation: str, y: torch.Tensor) -> tuple[bytes, Kept]:
    """What the library is given to write y [T, D]."""
    _one_type(x, y)
    number = ACTIVATIONS[activation]
    return _pack_activated(x.data_ptr(), NUMBERS[x.dtype], *x.shape, x.stride(0), number, y.data_ptr()), [x, y]


def add_rms_norm(
    library: Library,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
    offset: float,
    threads: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + y, both [T, D], and its norm."""
    total, norm = x.new_empty(x.shape), x.new_empty(x.shape)
    arguments, kept = add_rms_norm_arguments(x, y, weight, epsilon, offset, total, norm)
    library.call(ADD_RMS_NORM, arguments, threads)
    del kept
    return total, norm


def add_rms_norm_arguments(
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
    offset: float,
    total: torch.Tensor,
    norm: torch.Tensor,
) -> tuple[bytes, Kept]:
    """What the library is given to write the total and its norm [T, D]; the total may be x or y."""
    _one_type(x, y, weight, total, norm)
    arguments = _pack_add_norm(
        x.data_ptr(),
        y.data_ptr(),
        NUMBERS[x.dtype],
        *x.shape,
        x.stride(0),
        y.stride(0),
        weight.data_ptr(),
        epsilon,
        offset,
        total.data_ptr(),
        norm.data_ptr(),
    )
    return arguments, [x, y, weight, total, norm]


def add(library: Library, x: torch.Tensor, y: torch.Tensor, threads: int) -> torch.Tensor:
    """x + y, both [T, D]."""
    total = x.new_empty(x.shape)
    arguments, kept = add_arguments(x, y, total)
    library.call(ADD, arguments, threads)
    del kept
    return total


def add_arguments(x: torch.Tensor, y: torch.Tensor, total: torch.Tensor) -> tuple[bytes, Kept]:
    """What the library is given to write the total [T, D], which may be x or y."""
    _one_type(x, y, total)
    arguments = _pack_add(
        x.data_ptr(), y.data_ptr(), NUMBERS[x.dtype], *x.shape, x.stride(0), y.stride(0), total.data_ptr()
    )
    return arguments, [x, y, total]


def gated(library: Library, gate: torch.Tensor, up: torch.Tensor, activation: str, threads: int) -> torch.Tensor:
    """activation(gate) * up, both [T, D]; the activation is one of ACTIVATIONS."""
    y = gate.new_empty(gate.shape)
    arguments, kept = gated_arguments(gate, up, activation, y)
    library.call(GATED, arguments, threads)
    del kept
    return y


def gated_arguments(gate: torch.Tensor, up: torch.Tensor, activation: str, y: torch.Tensor) -> tuple[bytes, Kept]:
    """What the library is given to write y [T, D]."""
    _one_type(gate, up, y)
    arguments = _pack_gated(
        gate.data_ptr(),
        up.data_ptr(),
        NUMBERS[gate.dtype],
        *gate.shape,
        gate.stride(0),
        up.stride(0),
        ACTIVATIONS[activation],
        y.data_ptr(),
    )
    return arguments, [gate, up, y]


def rotate(
    library: Library,
    heads: Sequence[torch.Tensor],
    cosines: torch.Tensor,
    sines: torch.Tensor,
    interleaved: bool,
    threads: int,
) -> list[torch.Tensor]:
    """Queries and keys [T, H, D], or one of them, turned by the cosines and sines [T, 1, R] of a rotation."""
    ys = [x.new_empty(x.shape) for x in heads]
    arguments, kept = rotate_arguments(heads, cosines, sines, interleaved, ys)
    library.call(ROTATE, arguments, threads)
    del kept
    return ys


def rotate_arguments(
    heads: Sequence[torch.Tensor],
    cosines: torch.Tensor,
    sines: torch.Tensor,
    interleaved: bool,
    ys: Sequence[torch.Tensor],
) -> tuple[bytes, Kept]:
    """What the library is given to write the turned heads, each of which may be what it is made from."""
    _one_type(*heads, cosines, sines, *ys)
    assert 1 <= len(heads) <= 2
    tokens, _, dim = heads[0].shape
    told = [
        NUMBERS[cosines.dtype],
        tokens,
        dim,
        cosines.data_ptr(),
        sines.data_ptr(),
        cosines.shape[-1],
        cosines.stride(0),
        sines.stride(0),
        int(interleaved),
        len(heads),
    ]
    for x, y in zip(heads, ys, strict=True):
        told += (x.data_ptr(), x.shape[1], x.stride(0), x.stride(1), y.data_ptr())
    if len(heads) == 1:
        told += _NO_HEADS
    return _pack_rotate(*told), [*heads, cosines, sines, *ys]


def _one_type(*tensors: torch.Tensor) -> None:
    assert all(x.dtype == tensors[0].dtype and x.stride(-1) == 1 for x in tensors)
