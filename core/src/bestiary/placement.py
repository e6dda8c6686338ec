"""On which device and in which type a model runs, and whether it fits there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from bestiary.errors import OptionError, OutOfMemory
from bestiary.protocols import Checkpoint

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_SHORT = {
    "f32": "float32",
    "fp32": "float32",
    "bf16": "bfloat16",
    "f16": "float16",
    "fp16": "float16",
    "half": "float16",
}
_STORED = {
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
    # Numbers of 8 bits are for keeping, not for computing with.
    "F8_E4M3": "bfloat16",
    "F8_E5M2": "bfloat16",
}


def choose_device(device: str | torch.device) -> torch.device:
    """ "auto" is the first GPU that torch sees, else the CPU.  Raises OptionError for one that is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
        if chosen.type == "meta":
            raise RuntimeError("it holds no data")
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        raise OptionError(
            f'The device "{device}" cannot be used: {str(error).splitlines()[0]}',
            fix='device="auto" or device="cpu"; `bestiary doctor` lists the devices',
        ) from error
    return chosen


def check_dtype(dtype: str | torch.dtype) -> None:
    """Raises OptionError for a name that `choose_dtype` will not take, before there is a checkpoint."""
    if dtype != "auto":
        _named_dtype(dtype)


def choose_dtype(dtype: str | torch.dtype, stated: object, checkpoint: Checkpoint) -> torch.dtype:
    """ "auto" is the type that the configuration states, else the one in which most of the checkpoint is stored."""
    if dtype == "auto":
        name = str(stated).removeprefix("torch.")
        return DTYPES.get(name) or DTYPES[_most_stored(checkpoint)]
    return _named_dtype(dtype)


def _named_dtype(dtype: str | torch.dtype) -> torch.dtype:
    spelled = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    name = _SHORT.get(spelled, spelled) if isinstance(spelled, str) else None
    if name not in DTYPES:
        raise OptionError(f'The dtype "{spelled}" is unknown.', fix=f"one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _most_stored(checkpoint: Checkpoint) -> str:
    sizes: Counter[str] = Counter()
    for name in checkpoint.names():
        sizes[_STORED.get(checkpoint.dtype(name), "float32")] += checkpoint.nbytes(name)
    return sizes.most_common(1)[0][0] if sizes else "float32"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has arithmetic for bfloat16: torch's convolutions in it take a hundred times as long without."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def check_fits(needed: int, device: torch.device) -> None:
    """Stop with numbers before a load that would end in a kill.  Raises OutOfMemory."""
    free = free_memory(device)
    if free is not None and needed > free:
        raise OutOfMemory(
            f"The weights need {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free on {device}.",
            fix='a smaller model, dtype="bfloat16", quant=..., or another device',
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had on a device, or None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
