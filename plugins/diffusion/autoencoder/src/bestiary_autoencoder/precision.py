"""In which type of numbers an autoencoder computes."""

import torch


def working_type(stored: torch.dtype, device: torch.device, force_upcast: bool) -> torch.dtype:
    """The type of pictures on their way through weights of the type `stored`.

    A CPU without arithmetic for bfloat16 computes in float32, with weights that are turned when they are used: torch's
    convolutions of bfloat16 take a hundred times as long there.  So does any with float16; and where a configuration
    says `force_upcast`, because values exceed what float16 holds, other devices do too.
    """
    if stored == torch.float16 and (force_upcast or device.type == "cpu"):
        return torch.float32
    if stored == torch.bfloat16 and device.type == "cpu" and not _multiplies_bfloat16():
        return torch.float32
    return stored


def _multiplies_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
