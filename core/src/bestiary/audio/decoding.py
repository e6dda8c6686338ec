"""Bytes become samples: libsndfile decodes, and what a header promises is judged before."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import torch

from bestiary.audio.headers import sniff, wav_sizes
from bestiary.audio.library import soundfile
from bestiary.audio.limits import AudioLimits
from bestiary.audio.waveform import Waveform
from bestiary.errors import MediaError

# libsndfile also reads two dozen formats of the eighties, each with a reader of its own.
_ENCODINGS = {
    "WAV": frozenset(("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")),
    "FLAC": frozenset(("PCM_S8", "PCM_16", "PCM_24")),
    "OGG": frozenset(("VORBIS", "OPUS")),
    "MP3": frozenset(("MPEG_LAYER_III",)),
}
_STATED = frozenset(("WAV", "FLAC"))
"""Formats in which the number of samples is a fact of the header, and not an estimate."""
_UNKNOWN = 1 << 62
"""libsndfile reports this or more where a header leaves the number open."""
_BLOCK = 1 << 16


def decode(data: bytes, limits: AudioLimits, where: str) -> Waveform:
    """A WAV, FLAC, OGG (Vorbis, Opus) or MP3 file.

    Raises MediaError for anything else, for what is damaged, and for what breaks a limit; a header that says so is
    enough for that, and one that says less than there is does not help.
    """
    kind = sniff(data, where)
    if kind == "WAV":
        channels, rate, length = wav_sizes(data, where)
        check(channels, rate, length, limits, where)
    library = soundfile()
    try:
        with library.SoundFile(BytesIO(data)) as file:
            if file.format.removesuffix("EX") != kind or file.subtype not in _ENCODINGS[kind]:
                what = f"Sounds in {file.subtype} of {file.format} are not read."
                raise MediaError(what, where=where, fix="convert it: ffmpeg -i sound.wav sound.flac")
            return _drained(file, kind, limits, where)
    except (library.SoundFileError, RuntimeError, OSError, ValueError) as error:
        reason = str(error).strip().rstrip(".") or "its samples cannot be decoded"
        raise MediaError(f"The {kind} file is damaged: {reason}.", where=where) from error


def _drained(file: Any, kind: str, limits: AudioLimits, where: str) -> Waveform:
    channels, rate, stated = file.channels, file.samplerate, file.frames
    known = 0 <= stated < _UNKNOWN
    check(channels, rate, stated if known else 0, limits, where)
    made = np.empty((channels, stated if known else 0), np.float32)
    length = 0
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        end = length + len(block)
        check(channels, rate, end, limits, where)
        if end > made.shape[1]:
            grown = np.empty((channels, max(2 * made.shape[1], end)), np.float32)
            grown[:, :length] = made[:, :length]
            made = grown
        made[:, length:end] = block.T
        if not np.isfinite(block).all():
            raise MediaError("Some samples of the sound are no finite numbers.", where=where)
        length = end
    if known and kind in _STATED and length < stated:
        what = f"The {kind} file announces {stated} samples of each channel and has {length}."
        raise MediaError(what, where=where, fix="fetch it again")
    return Waveform(torch.from_numpy(made[:, :length] if length == made.shape[1] else made[:, :length].copy()), rate)


def check(channels: int, rate: int, length: int, limits: AudioLimits, where: str) -> None:
    """Raises MediaError where a sound of `length` samples in each channel breaks a limit."""
    if not 1 <= channels <= limits.channels:
        what = f"The sound has {channels} channels; {limits.channels} are taken."
        raise MediaError(what, where=where, fix="mix it to fewer: ffmpeg -i sound.wav -ac 1 mono.wav")
    if not 1 <= rate <= limits.rate:
        raise MediaError(f"The sound has a rate of {rate} Hz; 1 to {limits.rate} are taken.", where=where)
    if length > limits.duration * rate:
        what = f"The sound lasts {_lasting(length / rate)}; {_lasting(limits.duration)} are taken."
        raise MediaError(what, where=where, fix="cut it, or raise the limit `duration`")
    if 4 * channels * length > limits.decoded_bytes:
        what = f"The sound has {4 * channels * length} bytes of samples; {limits.decoded_bytes} are taken."
        raise MediaError(what, where=where, fix="cut it, lower its rate, or raise the limit `decoded_bytes`")


def _lasting(seconds: float) -> str:
    return f"{seconds:.6g} seconds" if seconds < 300 else f"{seconds / 60:.1f} minutes"
