"""Spectrograms: short-time Fourier transforms, their power, and the logarithm of that on the mel scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from bestiary.audio.mel import NORMS, SCALES, mel_filters
from bestiary.errors import ConfigError, MediaError, shown

_WINDOWS: dict[str, Callable[..., torch.Tensor]] = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "blackman": torch.blackman_window,
    "ones": torch.ones,
}
_PADS = ("reflect", "constant", "replicate")
_LOGS = ("log", "log10", "db")
_BLOCK = 1 << 14
"""Frames that are transformed at once: a spectrum of hours is never whole in memory, its mel spectrum is."""


def _whole(name: str, value: Any, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f'"{name}" is {shown(value)}; a whole number from 1 to {most} is due.')


@dataclass(frozen=True)
class Spectral:
    """How a sound becomes a spectrogram.  Raises ConfigError for values that cannot be.

    The defaults are Whisper's (Radford et al. 2022), without its last step (`log_mel`).
    """

    rate: int = 16_000
    """Hz that the sound must have."""
    n_fft: int = 400
    hop_length: int = 160
    """Samples from one frame to the next."""
    win_length: int | None = None
    """Samples under the window, in the middle of a frame; None: `n_fft`."""
    window: str = "hann"
    center: bool = True
    """Whether the first frame has the first sample in its middle, for which half a frame is put at both ends."""
    pad_mode: str = "reflect"
    power: float = 2.0
    """Of the magnitude: 1 is the magnitude itself."""
    n_mels: int = 80
    lowest: float = 0.0
    highest: float | None = None
    """Hz; None: half of the rate."""
    scale: str = "slaney"
    norm: str | None = "slaney"
    log: str = "log10"
    """"log" (natural), "log10", or "db", ten times that."""
    floor: float = 1e-10
    """Below which no value comes before its logarithm is taken."""

    def __post_init__(self) -> None:
        for name, most in (("rate", 1 << 20), ("n_fft", 1 << 20), ("hop_length", 1 << 20), ("n_mels", 1 << 12)):
            _whole(name, getattr(self, name), most)
        if self.win_length is not None:
            _whole("win_length", self.win_length, self.n_fft)
        if self.n_fft < 2:
            raise ConfigError('"n_fft" is 1; a frame has two samples or more.')
        known = {"window": tuple(_WINDOWS), "pad_mode": _PADS, "scale": SCALES, "norm": NORMS, "log": _LOGS}
        for name, values in known.items():
            value = getattr(self, name)
            if value not in values:
                raise ConfigError(f'"{name}" is {shown(value)}; known are {", ".join(map(str, values))}.')
        for name, value in (("power", self.power), ("floor", self.floor)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigError(f'"{name}" is {shown(value)}; a number above zero is due.')


WHISPER = Spectral()


def stft(samples: torch.Tensor, how: Spectral = WHISPER) -> torch.Tensor:
    """samples [..., N] -> complex [..., F, T], F = n_fft // 2 + 1 and T = 1 + N // hop_length where it is centred.

    Raises MediaError for a sound that is shorter than a frame needs.
    """
    return _spectrum(_padded(samples, how), how).view(*samples.shape[:-1], how.n_fft // 2 + 1, -1)


def spectrogram(samples: torch.Tensor, how: Spectral = WHISPER) -> torch.Tensor:
    """samples [..., N] -> magnitudes to the power [..., F, T].  Raises as `stft` does."""
    return _powers(stft(samples, how), how)


def mel_spectrogram(samples: torch.Tensor, how: Spectral = WHISPER) -> torch.Tensor:
    """samples [..., N] -> [..., n_mels, T].  Raises as `stft` does."""
    filters = mel_filters(how.rate, how.n_fft, how.n_mels, how.lowest, how.highest, how.scale, how.norm)
    filters, padded, made = filters.to(samples.device, samples.dtype), _padded(samples, how), []
    frames = 1 + (padded.shape[1] - how.n_fft) // how.hop_length
    for start in range(0, frames, _BLOCK):
        end = (min(frames, start + _BLOCK) - 1) * how.hop_length + how.n_fft
        made.append(filters @ _powers(_spectrum(padded[:, start * how.hop_length : end], how), how))
    return torch.cat(made, 2).view(*samples.shape[:-1], how.n_mels, frames)


def _padded(samples: torch.Tensor, how: Spectral) -> torch.Tensor:
    """[R, N], with half a frame at both ends where the first frame is centred."""
    least = how.n_fft if not how.center else (how.n_fft // 2 + 1 if how.pad_mode == "reflect" else 1)
    if samples.shape[-1] < least:
        what = f"The sound has {samples.shape[-1]} samples; its spectrum needs {least}."
        raise MediaError(what, fix="put silence behind it")
    flat = samples.reshape(-1, samples.shape[-1])
    return F.pad(flat, (how.n_fft // 2, how.n_fft // 2), how.pad_mode) if how.center else flat


def _spectrum(padded: torch.Tensor, how: Spectral) -> torch.Tensor:
    """[R, N] -> complex [R, F, T]."""
    length = how.win_length or how.n_fft
    # torch.ones has no argument of this name.
    more = {} if how.window == "ones" else {"periodic": True}
    window = _WINDOWS[how.window](length, dtype=padded.dtype, device=padded.device, **more)
    return torch.stft(padded, how.n_fft, how.hop_length, length, window, center=False, return_complex=True)


def _powers(spectrum: torch.Tensor, how: Spectral) -> torch.Tensor:
    if how.power == 2.0:
        return spectrum.real.square() + spectrum.imag.square()
    return spectrum.abs() if how.power == 1.0 else spectrum.abs() ** how.power


def log_mel(samples: torch.Tensor, how: Spectral = WHISPER) -> torch.Tensor:
    """The logarithm of `mel_spectrogram`: samples [..., N] -> [..., n_mels, T].  Raises as `stft` does."""
    made = mel_spectrogram(samples, how).clamp(min=how.floor)
    if how.log == "log":
        return made.log()
    return made.log10() * (10.0 if how.log == "db" else 1.0)
