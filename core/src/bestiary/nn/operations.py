"""What the blocks of a model compute, as functions that a back end may bring faster (see `bestiary.kernels`).

The functions here are plain torch and the reference: every other implementation of an operation has the signature and,
within what it states, the results of its namesake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from bestiary.nn.activation import activation
from bestiary.nn.packed import Packed, PackedStack, PackedWeight
from bestiary.nn.rope import Rotation

Held = torch.Tensor | PackedWeight
"""A weight [out, in], plain or packed."""

HeldStack = torch.Tensor | PackedStack
"""Weights [experts, out, in], plain or packed."""


def linear(x: torch.Tensor, weights: Sequence[Held], biases: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
    """x [T, in] times each of the weights, plus its bias: [T, out] each, in the type of x."""
    return [_product(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]


def _product(x: torch.Tensor, weight: Held, bias: torch.Tensor | None) -> torch.Tensor:
    if isinstance(weight, torch.Tensor):
        return F.linear(x, weight, bias)
    y = weight.multiply(x)
    return y if bias is None else y + bias


def embed(tokens: torch.Tensor, table: Held, dtype: torch.dtype, scale: float) -> torch.Tensor:
    """Rows of a table by tokens [T] -> [T, D], times `scale` rounded to their type; of a packed table in `dtype`."""
    x = F.embedding(tokens, table) if isinstance(table, torch.Tensor) else table.rows(tokens).dequantize(dtype)
    # The released models multiply by the scale rounded to the weights' type.
    return x if scale == 1.0 else x * torch.tensor(scale, dtype=x.dtype, device=x.device)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    """Root-mean-square norm of x [..., D] in float32, times `offset` + weight [D].

    Without an offset the norm is rounded to the type of x before the weight multiplies, with one only after it.
    """
    if offset:
        h = F.rms_norm(x.float(), x.shape[-1:], None, eps)
        return (h * (offset + weight.float())).to(x.dtype)
    return weight * F.rms_norm(x, x.shape[-1:], None, eps)


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Layer norm of x [..., D] with weight and bias [D], rounded once."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def act(x: torch.Tensor, name: str) -> torch.Tensor:
    """An activation of `bestiary.nn.activation` of x [..., D]."""
    return activation(name)(x)


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x + y, of one shape."""
    return x + y


def add_rms_norm(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, eps: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + y, and its `rms_norm`."""
    total = x + y
    return total, rms_norm(total, weight, eps, offset)


def gated(gate: torch.Tensor, up: torch.Tensor, act: str) -> torch.Tensor:
    """act(gate) * up, of [T, H] each; `act` is a name of `bestiary.nn.activation`."""
    return activation(act)(gate) * up


def rotate(q: torch.Tensor, k: torch.Tensor, rotation: Rotation) -> tuple[torch.Tensor, torch.Tensor]:
    """q [T, H, D] and k [T, KH, D] turned."""
    # Both at once: a step of one token costs calls, not arithmetic.
    turned = rotation.apply(torch.cat((q, k), 1))
    return turned[:, : q.shape[1]], turned[:, q.shape[1] :]


def experts(
    x: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor, stacks: Sequence[HeldStack], act: str
) -> torch.Tensor:
    """Gated experts: x [T, D], weights and indices [T, K] -> [T, D].

    The stacks are gate and up [E, I, D] and down [E, D, I].  Tokens are grouped by expert, so each expert runs once.
    """
    gate, up, down = stacks

    def expert(number: int, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        opened, lifted = (_product(rows, stack[number], None) for stack in (gate, up))
        return _product(gated(opened, lifted, act), down[number], None)

    return by_expert(x, weights, indices, gate.shape[0], expert)


def by_expert(
    x: torch.Tensor,
    weights: torch.Tensor,
    indices: torch.Tensor,
    count: int,
    expert: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The weighed sum of what the chosen ones of `count` experts make of each token.

    expert(number, rows [R, D], tokens [R]) gives what one makes of some rows, those of `tokens`.
    """
    order = indices.flatten().argsort(stable=True)
    tokens = order // indices.shape[1]
    counts = torch.bincount(indices.flatten(), minlength=count).tolist()
    gathered = x[tokens]
    made = torch.empty_like(gathered)
    start = 0
    for number, rows in enumerate(counts):
        if rows:
            part = slice(start, start + rows)
            made[part] = expert(number, gathered[part], tokens[part])
            start += rows
    made = made * weights.flatten()[order, None].to(x.dtype)
    # Back to [T, K, D] and summed in the order of the choice, so that a token's sum does not depend on its batch.
    return torch.empty_like(made).index_copy_(0, order, made).view(*indices.shape, x.shape[1]).sum(1)


def adopt(weight: Packed, source: str | None = None) -> Packed:
    """A packed weight as the operations multiply it best, which may be another that has the same numbers.

    `source` names what it was read from: two weights of one source are the same.
    """
    return weight


@dataclass(frozen=True)
class Operations:
    """The operations that a model was fitted with; blocks call them by these names."""

    linear: Callable[[torch.Tensor, Sequence[Held], Sequence[torch.Tensor | None]], list[torch.Tensor]] = linear
    embed: Callable[[torch.Tensor, Held, torch.dtype, float], torch.Tensor] = embed
    rms_norm: Callable[[torch.Tensor, torch.Tensor, float, float], torch.Tensor] = rms_norm
    layer_norm: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, float], torch.Tensor] = layer_norm
    act: Callable[[torch.Tensor, str], torch.Tensor] = act
    add: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = add
    add_rms_norm: Callable[
        [torch.Tensor, torch.Tensor, torch.Tensor, float, float], tuple[torch.Tensor, torch.Tensor]
    ] = add_rms_norm
    gated: Callable[[torch.Tensor, torch.Tensor, str], torch.Tensor] = gated
    rotate: Callable[[torch.Tensor, torch.Tensor, Rotation], tuple[torch.Tensor, torch.Tensor]] = rotate
    experts: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Sequence[HeldStack], str], torch.Tensor] = experts
    adopt: Callable[[Packed, str | None], Packed] = adopt
    attend: Callable[..., torch.Tensor | None] | None = None
    """Attention over a paged cache (see `bestiary.generation.engine.paged_attention`); None: as there."""
    between: Callable[[], AbstractContextManager[None]] = nullcontext
    """Around what torch does between two steps, so that its threads do not stand in the way of the next."""
    record: Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]] | None = None
    """Records a step of fixed buffers and returns what does it again (see `bestiary.generation.engine.graphs`)."""


PLAIN = Operations()


def plain(operation: str) -> Callable[..., Any] | None:
    """The reference of an operation, with nobody else's code in it; None where there is nothing to compare."""
    if operation == "linear":
        return _plain_linear
    if operation == "experts":
        return _plain_experts
    if operation == "attend":
        from bestiary.generation.engine.paged_attention import attend_blocks

        return attend_blocks
    return None if operation in ("adopt", "between", "record") else getattr(PLAIN, operation)


def _plain_linear(
    x: torch.Tensor, weights: Sequence[Held], biases: Sequence[torch.Tensor | None]
) -> list[torch.Tensor]:
    plain = [w if isinstance(w, torch.Tensor) else w.dequantize(x.dtype) for w in weights]
    return linear(x, plain, biases)


def _plain_experts(
    x: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor, stacks: Sequence[HeldStack], act: str
) -> torch.Tensor:
    plain = [stack if isinstance(stack, torch.Tensor) else stack.dequantize(x.dtype) for stack in stacks]
    return experts(x, weights, indices, plain, act)


def fit(module: Any, operations: Operations) -> None:
    """Let every block under `module` call these operations."""
    for part in module.modules():
        if isinstance(getattr(part, "ops", None), Operations):
            part.ops = operations
