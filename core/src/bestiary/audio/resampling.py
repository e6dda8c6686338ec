"""Another rate: band-limited interpolation (Smith and Gossett 1984, "A flexible sampling-rate conversion method").

The kernel is that of torchaudio.functional.resample with its defaults: a sinc under a Hann window of six zero crossings
on each side, cut off at 0.99 of the lower of both Nyquist frequencies.  Where torchaudio imports, it is called.  Else,
for a ratio of small numbers the few kernels that recur are one matrix; for any other only their numbers that are not
zero are kept, of any two rates some millions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F

from bestiary.errors import OptionError, shown

_CROSSINGS = 6
_ROLLOFF = 0.99
_LARGEST = 1 << 20
"""Numbers in a matrix of kernels that is worth its memory."""
_BLOCK = 1 << 20
"""Numbers that are made at once."""


def resample(samples: torch.Tensor, source: int, target: int, *, method: str = "auto") -> torch.Tensor:
    """samples [..., N] at `source` Hz -> [..., ceil(N * target / source)] at `target` Hz, in float32.

    `method` is "sinc", which is always there, "torchaudio", the same of the library of that name, or "soxr", librosa's,
    which is steeper; "auto" takes the second where it imports, and else the first.  Raises OptionError for another, or
    one that is not installed.
    """
    for rate in (source, target):
        if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
            raise OptionError(f"A rate of {shown(rate)} Hz cannot be; a whole number above zero is due.")
    if method not in _METHODS:
        raise OptionError(f"{shown(method)} is no way to resample.", fix=f"choose one of {', '.join(_METHODS)}")
    if source == target or not samples.numel():
        return samples.float()
    divisor = math.gcd(source, target)
    flat = samples.float().reshape(-1, samples.shape[-1])
    made = _METHODS[method](flat, source // divisor, target // divisor)
    return made.view(*samples.shape[:-1], -1)


def _sinc(x: torch.Tensor, source: int, target: int) -> torch.Tensor:
    """x [R, N] -> [R, M]; the rates have no common divisor."""
    width, length = _width(source, target), -(-target * x.shape[1] // source)
    if target * (2 * width + source) > _LARGEST:
        return _each(x, source, target, width, length)
    kernels = _kernels(source, target).to(x.device)  # [target, K]
    windows = F.pad(x, (width, width + source)).unfold(1, kernels.shape[1], source)  # [R, N / source, K]
    rows = max(1, _BLOCK // kernels.shape[1])
    made = [part @ kernels.T for part in torch.split(windows, rows, 1)]
    return torch.cat(made, 1).flatten(1)[:, :length]


def _each(x: torch.Tensor, source: int, target: int, width: int, length: int) -> torch.Tensor:
    """The same where rows of the matrix are mostly zeros: what is not is gathered for each sample."""
    padded, taps = F.pad(x, (width, width + source)), torch.arange(2 * width + 1)
    kernels = x.new_empty(min(target, length), len(taps))  # they recur after `target` samples
    for rows in torch.split(torch.arange(len(kernels)), max(1, _BLOCK // len(taps))):
        shift = (rows * source % target)[:, None].double() / target
        kernels[rows[0] : rows[-1] + 1] = _windowed((taps - width) - shift, source, target)
    made = x.new_empty(len(x), length)
    for places in torch.split(torch.arange(length), max(1, _BLOCK // len(taps))):
        start = places * source // target  # the sample before each, in x
        index = (start[:, None] + taps).to(x.device)
        weights = kernels[(places % target).to(x.device)]
        made[:, places[0] : places[-1] + 1] = (padded[:, index] * weights).sum(-1)
    return made


def _width(source: int, target: int) -> int:
    return math.ceil(_CROSSINGS * source / (min(source, target) * _ROLLOFF))


@lru_cache(16)
def _kernels(source: int, target: int) -> torch.Tensor:
    """[target, 2 * width + source]: the weights of the samples around, for each place between two that recurs."""
    width = _width(source, target)
    away = torch.arange(-width, width + source, dtype=torch.float64)
    shift = torch.arange(target, dtype=torch.float64)[:, None] * source / target
    return _windowed(away - shift, source, target).float()


def _windowed(away: torch.Tensor, source: int, target: int) -> torch.Tensor:
    """The weight of a sample so many samples away."""
    cutoff = min(source, target) * _ROLLOFF / source
    t = (away * cutoff).clamp(-_CROSSINGS, _CROSSINGS)
    return torch.sinc(t) * torch.cos(t * (math.pi / _CROSSINGS / 2)).square() * cutoff


def _torchaudio(x: torch.Tensor, source: int, target: int) -> torch.Tensor:
    made: torch.Tensor = _library("torchaudio", "torchaudio").functional.resample(x, source, target)
    return made


def _auto(x: torch.Tensor, source: int, target: int) -> torch.Tensor:
    return (_torchaudio if _imports("torchaudio") else _sinc)(x, source, target)


@lru_cache
def _imports(name: str) -> bool:
    try:
        import_module(name)
    except (ImportError, OSError):
        return False
    return True


def _soxr(x: torch.Tensor, source: int, target: int) -> torch.Tensor:
    made = _library("soxr", "bestiary-core[audio]").resample(x.cpu().numpy().T, source, target, quality="HQ")
    length = -(-target * x.shape[1] // source)
    found = torch.from_numpy(made.T.copy())[:, :length].to(x.device)
    return F.pad(found, (0, length - found.shape[1]))


def _library(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # the second: a build for another torch
        what = f'To resample with "{name}" it must import: {error}.'
        raise OptionError(what, fix=f'pip install "{package}", or choose "sinc"') from error


_METHODS: dict[str, Callable[[torch.Tensor, int, int], torch.Tensor]] = {
    "auto": _auto,
    "sinc": _sinc,
    "torchaudio": _torchaudio,
    "soxr": _soxr,
}
