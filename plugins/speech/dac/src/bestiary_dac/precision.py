"""In which type of numbers the codec computes."""

import torch

from bestiary.placement import cpu_multiplies_bfloat16


def working_type(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The type of activations on their way through weights of the type `stored`.

    A CPU without arithmetic for bfloat16 computes in float32: torch's convolutions of bfloat16 take a hundred times as
    long there.  So does any CPU with float16.
    """
    if device.type != "cpu" or stored == torch.float64:
        return stored
    return torch.bfloat16 if stored == torch.bfloat16 and cpu_multiplies_bfloat16() else torch.float32
