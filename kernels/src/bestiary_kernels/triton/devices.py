# mypy: disable-error-code="import-not-found"
"""Where kernels run, and on what."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def runs_on(device: torch.device) -> bool:
    """Whether kernels run there: on a GPU, and on the CPU where Triton interprets them."""
    if device.type == "cuda":
        return True
    import triton

    return device.type == "cpu" and bool(triton.knobs.runtime.interpret)


def takes(*tensors: torch.Tensor) -> bool:
    """Whether kernels compute with them: tensors of one type on one device, through which nothing is differentiated."""
    first = tensors[0]
    if first.dtype not in TYPES or not runs_on(first.device):
        return False
    if any(x.dtype != first.dtype or x.device != first.device for x in tensors):
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


def on_device_of(x: torch.Tensor) -> AbstractContextManager[None]:
    """Within it kernels are launched where x is: Triton takes the current device, whatever it is given."""
    if x.device.type != "cuda" or x.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(x.device)
