"""The operations of `bestiary.nn.operations` in native code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from bestiary.nn import operations as plain
from bestiary.nn.operations import Held, HeldStack
from bestiary.nn.rope import Rotation
from bestiary_kernels.cpu import compiled as _compiled  # noqa: F401  # torch learns of the operations
from bestiary_kernels.cpu import experts as grouped
from bestiary_kernels.cpu import linear as products
from bestiary_kernels.cpu import pointwise
from bestiary_kernels.cpu.library import LibraryMissing, library
from bestiary_kernels.cpu.linear import PlainWeight, multiply, multiply_plain
from bestiary_kernels.cpu.panels import NUMBERS
from bestiary_kernels.cpu.weights import Float8Weight, PanelStack, PanelWeight

__all__ = [
    *("act", "add", "add_rms_norm", "embed", "experts", "gated", "layer_norm", "linear", "rms_norm", "rotate"),
    "unavailable",
]

FEW = 16
"""Rows of x up to which plain weights are read once, so that the memory's speed decides."""


def unavailable() -> str | None:
    """Why the library cannot be called here, or None."""
    try:
        library()
    except LibraryMissing as error:
        return str(error)
    return None


def linear(x: torch.Tensor, weights: Sequence[Held], biases: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
    """`bestiary.nn.operations.linear`; with weights in panels x is rounded to int8, a scale for each 32 of a row."""
    if x.stride(-1) != 1:
        x = x.contiguous()
    made: list[torch.Tensor] = []
    for start in range(0, len(weights), products.MOST):
        part = slice(start, start + products.MOST)
        made += _together(x, weights[part], biases[part])
    return made


def _together(x: torch.Tensor, weights: Sequence[Held], biases: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
    if torch.compiler.is_compiling():
        return [_traced(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]
    threads = torch.get_num_threads()
    if all(type(weight) is PanelWeight for weight in weights):
        return multiply(library(), x, [weight.panels for weight in weights], biases, threads)  # type: ignore[union-attr]
    if all(_is_plain(weight, x) for weight in weights):
        return multiply_plain(library(), x, [_plain(weight) for weight in weights], biases, threads)
    if len(weights) > 1:
        pairs = zip(weights, biases, strict=True)
        return [y for weight, bias in pairs for y in _together(x, [weight], [bias])]
    return plain.linear(x, weights, biases)


def _traced(x: torch.Tensor, weight: Held, bias: torch.Tensor | None) -> torch.Tensor:
    """One product, as torch.compile can trace it."""
    if isinstance(weight, PanelWeight):
        panels = weight.panels
        made = torch.ops.bestiary.linear(x, panels.data, panels.type.number, panels.rows, panels.group, bias)
    elif isinstance(weight, torch.Tensor) and _is_plain(weight, x):
        made = torch.ops.bestiary.plain_linear(x, weight, bias)
    else:
        (made,) = plain.linear(x, [weight], [bias])
    return made  # type: ignore[no-any-return]


def _is_plain(weight: Held, x: torch.Tensor) -> bool:
    """Whether its rows are multiplied as they are, and torch does not do that faster."""
    if isinstance(weight, Float8Weight):
        return True
    if not isinstance(weight, torch.Tensor) or weight.dtype not in NUMBERS or weight.stride(-1) != 1:
        return False
    return len(x) <= FEW or not _torch_is_fast(weight.dtype)


def _plain(weight: Held) -> PlainWeight:
    return weight.plain if isinstance(weight, Float8Weight) else PlainWeight(weight)  # type: ignore[arg-type]


@cache
def _torch_is_fast(dtype: torch.dtype) -> bool:
    """Whether torch's product of large matrices has instructions of its own for the type."""
    if dtype == torch.bfloat16:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return dtype == torch.float32


def embed(tokens: torch.Tensor, table: Held, dtype: torch.dtype, scale: float) -> torch.Tensor:
    """`bestiary.nn.operations.embed`; of a table in panels, rows are unpacked in native code."""
    if type(table) is not PanelWeight or dtype not in NUMBERS:
        return plain.embed(tokens, table, dtype, scale)
    if torch.compiler.is_compiling():
        panels = table.panels
        told = (panels.data, panels.type.number, panels.rows, panels.columns, panels.group)
        return torch.ops.bestiary.rows(tokens, *told, dtype, scale)  # type: ignore[no-any-return]
    return table.take(tokens, dtype, scale)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    """`bestiary.nn.operations.rms_norm`."""
    if x.ndim not in (2, 3) or x.stride(-1) != 1 or weight.dtype != x.dtype:
        return plain.rms_norm(x, weight, eps, offset)
    if torch.compiler.is_compiling():
        return torch.ops.bestiary.rms_norm(x, weight, eps, offset)  # type: ignore[no-any-return]
    return pointwise.rms_norm(library(), x, weight, eps, offset, torch.get_num_threads())


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    """`bestiary.nn.operations.layer_norm`."""
    types = {each.dtype for each in (x, weight, bias) if each is not None}
    if len(types) > 1 or not x.is_contiguous() or x.ndim < 2 or torch.compiler.is_compiling():
        return plain.layer_norm(x, weight, bias, eps)
    flat = x.view(-1, x.shape[-1])
    return pointwise.layer_norm(library(), flat, weight, bias, eps, torch.get_num_threads()).view(x.shape)


def act(x: torch.Tensor, name: str) -> torch.Tensor:
    """`bestiary.nn.operations.act`."""
    if name not in pointwise.ACTIVATIONS or not x.is_contiguous() or x.ndim < 2 or torch.compiler.is_compiling():
        return plain.act(x, name)
    flat = x.view(-1, x.shape[-1])
    return pointwise.activated(library(), flat, name, torch.get_num_threads()).view(x.shape)


def add_rms_norm(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, eps: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`bestiary.nn.operations.add_rms_norm`."""
    if not _rows(x, y) or weight.dtype != x.dtype:
        return plain.add_rms_norm(x, y, weight, eps, offset)
    if torch.compiler.is_compiling():
        return torch.ops.bestiary.add_rms_norm(x, y, weight, eps, offset)  # type: ignore[no-any-return]
    return pointwise.add_rms_norm(library(), x, y, weight, eps, offset, torch.get_num_threads())


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """`bestiary.nn.operations.add`."""
    if not _rows(x, y):
        return plain.add(x, y)
    if torch.compiler.is_compiling():
        return torch.ops.bestiary.add(x, y)  # type: ignore[no-any-return]
    return pointwise.add(library(), x, y, torch.get_num_threads())


def gated(gate: torch.Tensor, up: torch.Tensor, act: str) -> torch.Tensor:
    """`bestiary.nn.operations.gated`."""
    if act not in pointwise.ACTIVATIONS or not _rows(gate, up):
        return plain.gated(gate, up, act)
    if torch.compiler.is_compiling():
        return torch.ops.bestiary.gated(gate, up, act)  # type: ignore[no-any-return]
    return pointwise.gated(library(), gate, up, act, torch.get_num_threads())


def rotate(q: torch.Tensor, k: torch.Tensor, rotation: Rotation) -> tuple[torch.Tensor, torch.Tensor]:
    """`bestiary.nn.operations.rotate`."""
    cos, sin = rotation.cos, rotation.sin
    alike = q.dtype == k.dtype == cos.dtype == sin.dtype and q.stride(-1) == k.stride(-1) == 1
    if not alike or cos.shape[-1] > q.shape[-1] or cos.stride(0) != sin.stride(0):
        return plain.rotate(q, k, rotation)
    if torch.compiler.is_compiling():
        return torch.ops.bestiary.rotate(q, k, cos, sin, rotation.interleaved)  # type: ignore[no-any-return]
    turned = pointwise.rotate(library(), (q, k), cos, sin, rotation.interleaved, torch.get_num_threads())
    return turned[0], turned[1]


def experts(
    x: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor, stacks: Sequence[HeldStack], act: str
) -> torch.Tensor:
    """`bestiary.nn.operations.experts`; with weights in panels, what they multiply is rounded to int8."""
    known = all(type(stack) is PanelStack or _is_plain_stack(stack, x) for stack in stacks)
    known = known and _alike(*stacks[:2])
    if not known or act not in grouped.ACTIVATIONS or x.stride(-1) != 1:
        return plain.experts(x, weights, indices, stacks, act)
    gate, up, down = (grouped.Stack.of(stack) for stack in stacks)  # type: ignore[arg-type]
    shares, chosen = weights.to(x.dtype).contiguous(), indices.contiguous()
    return grouped.multiply(library(), x, shares, chosen, (gate, up, down), act, torch.get_num_threads())


def _is_plain_stack(stack: HeldStack, x: torch.Tensor) -> bool:
    return isinstance(stack, torch.Tensor) and stack.dtype in NUMBERS and stack.is_contiguous()


def _alike(gate: HeldStack, up: HeldStack) -> bool:
    """Whether x is prepared for both in one way."""
    if isinstance(gate, torch.Tensor) and isinstance(up, torch.Tensor):
        return gate.dtype == up.dtype
    return type(gate) is type(up)


def _rows(*tensors: torch.Tensor) -> bool:
    """Whether they are rows of one shape and type."""
    first = tensors[0]
    return all(x.ndim == 2 and x.stride(1) == 1 and x.dtype == first.dtype and x.shape == first.shape for x in tensors)
