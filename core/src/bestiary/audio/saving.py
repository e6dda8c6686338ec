"""Waveforms into files."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from bestiary.audio.library import soundfile
from bestiary.audio.waveform import Waveform
from bestiary.errors import OptionError, shown

_FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
_MOST_CHANNELS = {"flac": 8, "mp3": 2}
_RATES = {
    "opus": (8000, 12000, 16000, 24000, 48000),
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
_HIGHEST_RATE = {"flac": 655350, "ogg": 200000}
_BLOCK = 1 << 14
"""Samples that are encoded at once: libvorbis keeps what one call gives it on the stack."""


def save(waveform: Waveform, path: str | Path, *, encoding: str = "pcm") -> None:
    """Write a sound in the format of the path's ending: wav, flac, ogg (Vorbis), opus or mp3.

    `encoding` is that of `encode`.  Raises OptionError where that is not possible, and leaves no half of a file.
    """
    place = Path(path)
    data = encode(waveform, place.suffix.removeprefix(".").lower(), encoding=encoding)
    try:
        try:
            place.write_bytes(data)
        except BaseException:
            with suppress(OSError):
                place.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        fix = "choose another place for it"
        raise OptionError(f"The sound cannot be written: {reason}.", where=place, fix=fix) from error


def encode(waveform: Waveform, format: str = "wav", *, encoding: str = "pcm") -> bytes:
    """The bytes of a file of a format: "wav", "flac", "ogg", "opus" or "mp3".

    `encoding` is "pcm", whole numbers of 16 bits, in which what is beyond full scale is cut; or, of WAV alone, "float",
    which keeps every bit.  The others have their own, and lose a little.

    Raises OptionError for another format, and for a rate or channels that it cannot have.
    """
    if format not in _FORMATS:
        fix = f"let it end in one of {', '.join(_FORMATS)}"
        raise OptionError(f"Sounds are not written as {shown(format)}.", fix=fix)
    if encoding not in ("pcm", "float") or (encoding == "float" and format != "wav"):
        raise OptionError(f"{format} has no encoding {shown(encoding)}.", fix='"pcm" is for all, "float" for wav')
    if not waveform.length:
        raise OptionError("A sound without samples is not written.")
    if not bool(waveform.samples.isfinite().all()):
        raise OptionError("Some samples of the sound are no finite numbers.")
    _check(waveform, format)
    kind, subtype = _FORMATS[format]
    subtype = "FLOAT" if encoding == "float" else subtype
    data = np.ascontiguousarray(waveform.samples.detach().cpu().numpy().T)
    library, stream = soundfile(), BytesIO()
    try:
        with library.SoundFile(stream, "w", waveform.rate, waveform.channels, subtype, format=kind) as file:
            for start in range(0, len(data), _BLOCK):
                file.write(
                    _whole(data[start : start + _BLOCK]) if subtype == "PCM_16" else data[start : start + _BLOCK]
                )
    except (library.SoundFileError, RuntimeError, ValueError) as error:
        raise OptionError(f"The sound cannot be encoded as {format}: {error}.") from error
    return stream.getvalue()


def rate_for(format: str, rate: int) -> int:
    """The lowest rate of a format that loses nothing of a sound of `rate` Hz, or else its highest."""
    most = _HIGHEST_RATE.get(format, rate)
    known = _RATES.get(format, (min(rate, most),))
    return next((each for each in known if each >= rate), known[-1])


def _whole(block: np.ndarray) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Steps of 1 / 32768, by which they are divided when they are read."""
    return np.clip(np.rint(block * np.float32(32768)), -32768, 32767).astype(np.int16)


def _check(waveform: Waveform, format: str) -> None:
    rates, most = _RATES.get(format), _MOST_CHANNELS.get(format, 255)
    if waveform.channels > most:
        raise OptionError(f"{format} has at most {most} channels; the sound has {waveform.channels}.")
    if (rates and waveform.rate not in rates) or waveform.rate > _HIGHEST_RATE.get(format, waveform.rate):
        due = f"one of {', '.join(map(str, rates))}" if rates else f"at most {_HIGHEST_RATE[format]}"
        raise OptionError(
            f"{format} has no rate of {waveform.rate} Hz; {due} is due.",
            fix=f"resample it first: waveform.resampled({rates[-1] if rates else 48000})",
        )
