"""A source of any kind becomes a waveform: a path or URL, a data URL, bytes, an open file, an array with its rate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bestiary.audio.decoding import check, decode
from bestiary.audio.limits import DEFAULT, AudioLimits
from bestiary.audio.waveform import Waveform, check_rate
from bestiary.errors import MediaError, shown
from bestiary.media.reading import read

_SCALES = {torch.int16: 1 << 15, torch.int32: 1 << 31, torch.int8: 1 << 7}
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_MAPPING = frozenset(("array", "sampling_rate"))
"""The keys of a sound in a data set of Hugging Face; "path" may stand beside them."""


def open_audio(source: Any, limits: AudioLimits = DEFAULT, *, rate: int | None = None) -> Waveform:
    """A sound as it is stored: its own rate, all of its channels; safe in threads.

    `rate` says in Hz what an array (NumPy or torch, [samples] or [channels, samples]) does not; for a file it must not
    be given.  Whole numbers of 8, 16 and 32 bits are divided by their range.

    Raises MediaError whatever the source holds, and OptionError where soundfile is not installed.
    """
    if isinstance(source, Waveform):
        source, rate = source.samples, _only(rate, source.rate)
    elif isinstance(source, Mapping):
        if not _MAPPING <= set(source) <= _MAPPING | {"path"}:
            what, fix = "The mapping is not that of a sound.", 'write {"array": [...], "sampling_rate": 16000}'
            raise MediaError(what, fix=fix)
        source, rate = source["array"], _only(rate, source["sampling_rate"])
    if isinstance(source, np.ndarray | torch.Tensor):
        return _from_array(source, rate, limits)
    if isinstance(source, list | tuple):
        raise MediaError(f"A {type(source).__name__} is not one sound.", fix="give a NumPy array, and its `rate`")
    if rate is not None:
        raise MediaError("A file tells its rate itself.", fix="leave `rate` out, and resample what was opened")
    data, where = read(source, limits.source, time.monotonic() + limits.source.seconds)
    return decode(data, limits, where)


def _only(asked: int | None, own: Any) -> Any:
    if asked is not None and asked != own:
        raise MediaError(f"The sound has a rate of {shown(own)} Hz, and {shown(asked)} were said.")
    return own


def _from_array(array: np.ndarray | torch.Tensor, rate: int | None, limits: AudioLimits) -> Waveform:
    where = f"an array {list(array.shape)} of {str(array.dtype).removeprefix('torch.')}"
    if rate is None:
        raise MediaError("An array does not tell its rate.", where=where, fix="give it: rate=16000")
    check_rate(rate)
    if array.ndim not in (1, 2) or 0 in array.shape[:-1]:
        raise MediaError("The array is neither [samples] nor [channels, samples].", where=where)
    channels = array.shape[0] if array.ndim == 2 else 1
    if channels > limits.channels and array.shape[1] <= limits.channels:
        what = "The array has its channels last; [channels, samples] is due."
        raise MediaError(what, where=where, fix="turn it: array.T")
    check(channels, rate, array.shape[-1], limits, where)
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fi" or array.dtype.itemsize > 8:
            raise MediaError(f"Arrays of {array.dtype} are no sounds.", where=where, fix="convert it to float32")
        array = torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
    samples = array.detach().to("cpu").reshape(channels, -1)
    if samples.dtype in _SCALES:
        samples = samples.float() / _SCALES[samples.dtype]
    elif samples.dtype in _FLOATS:
        samples = samples.float()
    else:
        kind = str(samples.dtype).removeprefix("torch.")
        raise MediaError(f"Arrays of {kind} are no sounds.", where=where, fix="convert it to float32")
    if not bool(torch.isfinite(samples).all()):
        raise MediaError("Some samples of the sound are no finite numbers.", where=where)
    # Not the memory of the caller, who may go on writing to it.
    return Waveform(samples.clone() if samples.data_ptr() == array.data_ptr() else samples, rate)
