"""Sounds and files that several tests need."""

import math
import struct
from io import BytesIO

import torch

from bestiary.audio.waveform import Waveform


def tone(rate: int = 16000, seconds: float = 0.5, channels: int = 1, pitch: float = 440.0) -> Waveform:
    """A tone at half of full scale, in each channel a little lower."""
    times = torch.arange(int(rate * seconds)) / rate
    rows = [0.5 * torch.sin(2 * math.pi * pitch / (1 + row) * times) for row in range(channels)]
    return Waveform(torch.stack(rows), rate)


def wav(
    data: bytes = b"\0" * 64,
    *,
    channels: int = 1,
    rate: int = 16000,
    bits: int = 16,
    kind: int = 1,
    announced: int | None = None,
    before: bytes = b"",
) -> bytes:
    """A WAV file that announces what it is told to."""
    align = channels * bits // 8
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * align & 0xFFFFFFFF, align & 0xFFFF, bits)
    size = len(data) if announced is None else announced
    body = b"WAVE" + b"fmt " + struct.pack("<I", 16) + fmt + before + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(body) & 0xFFFFFFFF) + body


def silence(seconds: int, rate: int = 8000, format: str = "FLAC", subtype: str = "PCM_16") -> bytes:
    """A file of many seconds in few bytes."""
    import numpy as np
    import soundfile

    stream = BytesIO()
    with soundfile.SoundFile(stream, "w", rate, 1, subtype, format=format) as file:
        for _ in range(seconds):
            file.write(np.zeros(rate, np.int16))
    return stream.getvalue()


def with_length(flac: bytes, length: int) -> bytes:
    """A FLAC file whose header announces another number of samples."""
    made = bytearray(flac)
    made[18:26] = (int.from_bytes(made[18:26], "big") >> 36 << 36 | length).to_bytes(8, "big")
    return bytes(made)
