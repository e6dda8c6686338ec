"""In which type of numbers an autoencoder keeps pictures, and in which it computes."""

import torch

from bestiary.placement import cpu_multiplies_bfloat16


def kept_type(stored: torch.dtype, device: torch.device, force_upcast: bool) -> torch.dtype:
    """The type of pictures between the layers, of weights of the type `stored`.

    float32 for those of float16 on a CPU, and on other devices where a configuration says `force_upcast`, because
    values exceed what float16 holds.
    """
    if stored == torch.float16 and (force_upcast or device.type == "cpu"):
        return torch.float32
    return stored


def computing_type(x: torch.Tensor) -> torch.dtype:
    """The type in which a layer computes what it makes of a picture, part by part.

    A CPU without arithmetic for bfloat16 computes in float32, with weights that are turned when they are used: torch's
    convolutions of bfloat16 take a hundred times as long there.
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not cpu_multiplies_bfloat16():
        return torch.float32
    return x.dtype
