"""The operations of `bestiary.nn.operations` in Triton kernels, rounded where plain torch rounds.

What the kernels do not take goes to plain torch: other types of numbers, other devices, what is differentiated.  While
torch.compile traces a model it fuses norms and gates itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import torch

from bestiary.nn import operations as plain
from bestiary.nn.operations import Held, HeldStack
from bestiary_kernels.triton.attending import attend
from bestiary_kernels.triton.devices import on_device_of, takes
from bestiary_kernels.triton.weights import TritonStack, TritonWeight, adopt

if TYPE_CHECKING:
    from bestiary_kernels.triton.weight import Weight

__all__ = ["add_rms_norm", "adopt", "attend", "experts", "gated", "linear", "rms_norm", "unavailable"]

WIDEST = 1 << 16
"""Numbers of a row that one program of a norm holds."""

ACTIVATIONS: Mapping[str, Literal["silu", "gelu_tanh"]] = MappingProxyType(
    {
        "silu": "silu",
        "swish": "silu",
        "gelu_new": "gelu_tanh",
        "gelu_fast": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
    }
)
"""By their names in configurations."""


def unavailable() -> str | None:
    """Why the kernels cannot run here, or None."""
    if find_spec("triton") is None:
        return "triton is not installed"
    return None if torch.cuda.is_available() else "there is no CUDA device"


def linear(x: torch.Tensor, weights: Sequence[Held], biases: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
    """`bestiary.nn.operations.linear`; plain weights are multiplied by torch."""
    return [_product(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]


def _product(x: torch.Tensor, weight: Held, bias: torch.Tensor | None) -> torch.Tensor:
    packed = isinstance(weight, TritonWeight) and not torch.compiler.is_compiling()
    if bias is None or not packed or not takes(x, bias):
        return plain.linear(x, [weight], [bias])[0]
    return weight.multiply(x).add_(bias)  # in place, for nobody else has it


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    """`bestiary.nn.operations.rms_norm`."""
    if not _normed(x, weight):
        return plain.rms_norm(x, weight, eps, offset)
    from bestiary_kernels.triton.norm import add_rms_norm as kernel

    with on_device_of(x):
        return kernel(x, None, weight, eps, offset)[0]


def add_rms_norm(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, eps: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`bestiary.nn.operations.add_rms_norm`."""
    if not _normed(x, weight, y):
        return plain.add_rms_norm(x, y, weight, eps, offset)
    from bestiary_kernels.triton.norm import add_rms_norm as kernel

    with on_device_of(x):
        normed, total = kernel(x, y, weight, eps, offset)
    return total, normed


def _normed(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor | None = None) -> bool:
    """Whether the kernel norms x, or x + y, by the weight."""
    if torch.compiler.is_compiling() or weight.shape != x.shape[-1:] or weight.numel() > WIDEST:
        return False
    added = () if y is None else (y,)
    return weight.is_contiguous() and all(y.shape == x.shape for y in added) and takes(x, weight, *added)


def gated(gate: torch.Tensor, up: torch.Tensor, act: str) -> torch.Tensor:
    """`bestiary.nn.operations.gated`."""
    known = act in ACTIVATIONS and gate.shape == up.shape
    if torch.compiler.is_compiling() or not known or not takes(gate, up):
        return plain.gated(gate, up, act)
    from bestiary_kernels.triton.gated import gelu_tanh_and_mul, silu_and_mul

    with on_device_of(gate):
        return silu_and_mul(gate, up) if ACTIVATIONS[act] == "silu" else gelu_tanh_and_mul(gate, up)


def experts(
    x: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor, stacks: Sequence[HeldStack], act: str
) -> torch.Tensor:
    """`bestiary.nn.operations.experts`, in one launch for each projection; nothing waits for the device."""
    if torch.compiler.is_compiling() or act not in ACTIVATIONS or not takes(x):
        return plain.experts(x, weights, indices, stacks, act)
    gate, up, down = (_stack(stack, x) for stack in stacks)
    if gate is None or up is None or down is None:
        return plain.experts(x, weights, indices, stacks, act)
    from bestiary_kernels.triton.routing import routed

    with on_device_of(x):
        return routed(x, weights, indices, (gate, up, down), ACTIVATIONS[act])


def _stack(stack: HeldStack, x: torch.Tensor) -> Weight | None:
    """A stack as the kernels take it, or None."""
    if isinstance(stack, TritonStack):
        return stack.weight
    if not isinstance(stack, torch.Tensor) or not takes(x, stack) or not stack.is_contiguous() or not stack.numel():
        return None
    from bestiary_kernels.triton.weight import Weight

    return Weight("plain", stack)
