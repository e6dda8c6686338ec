"""Files made to harm, or only broken: a waveform or a MediaError comes out, within a second."""

import struct
import time
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.audio.limits import AudioLimits
from bestiary.audio.opening import open_audio
from bestiary.audio.saving import encode
from bestiary.audio.waveform import Waveform
from bestiary.errors import MediaError

pytest.importorskip("soundfile")


OPEN = 0xFFFFFFFF
"""What ffmpeg announces where it writes to a pipe."""
SOX = 0x7FFFF000
"""What SoX announces there, less what is no whole sample of every channel."""


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


NOISE = Waveform(torch.rand(2, 3000, generator=torch.Generator().manual_seed(1)) - 0.5, 8000)
FILES = {format: encode(NOISE, format) for format in ("wav", "flac", "ogg", "opus", "mp3")}


def refused(data: bytes, match: str, limits: AudioLimits | None = None) -> None:
    start = time.monotonic()
    with pytest.raises(MediaError, match=match):
        open_audio(data, limits or AudioLimits())
    assert time.monotonic() - start < 1


@pytest.fixture(scope="module")
def two_hours() -> bytes:
    return silence(7200)


def test_two_hours_of_silence(two_hours: bytes) -> None:
    assert len(two_hours) < 200_000
    refused(two_hours, r"lasts 120.0 minutes; 30.0 minutes are taken")


def test_two_hours_that_say_nothing_of_their_length_are_cut_off(two_hours: bytes) -> None:
    refused(with_length(two_hours, 0), "are taken", AudioLimits(duration=60))


def test_a_header_may_not_say_less_than_there_is(two_hours: bytes) -> None:
    assert open_audio(with_length(two_hours, 8000)).length <= 8000


def test_a_header_may_not_say_more_than_there_is(two_hours: bytes) -> None:
    short = silence(1)
    refused(with_length(short, 16000), "announces 16000 samples|damaged")
    refused(with_length(short, (1 << 36) - 1), "lasts")


@pytest.mark.parametrize(("format", "subtype"), [("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS")])
def test_other_formats_tell_their_length_too(format: str, subtype: str) -> None:
    refused(silence(61, 8000, format, subtype), "lasts 61", AudioLimits(duration=60))


@pytest.mark.parametrize("announced", [65, 1 << 30, SOX - 1, SOX + 1, (1 << 31) - 1, (1 << 32) - 2])
def test_a_wav_header_that_lies(announced: int) -> None:
    refused(wav(announced=announced), f"announces {announced} bytes of samples and has 64")


def test_a_wav_header_without_a_size_breaks_limits_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    data = wav(bytes(2 * 16001), announced=OPEN)
    assert open_audio(data, AudioLimits(duration=2)).length == 16001
    assert open_audio(data, AudioLimits(decoded_bytes=64004)).length == 16001
    # Before any decoder is asked.
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    refused(data, "lasts 1.00006 seconds; 1 seconds are taken", AudioLimits(duration=1))
    refused(data, "has 64004 bytes of samples; 64000 are taken", AudioLimits(decoded_bytes=64000))
    refused(wav(bytes(4), announced=OPEN, channels=9), "has 9 channels")


@pytest.mark.parametrize("announced", [OPEN, SOX // 6 * 6])
def test_a_wav_from_a_pipe_is_read_to_its_end(announced: int) -> None:
    due = open_audio(wav(bytes(range(240)), channels=2, bits=24))
    found = open_audio(wav(bytes(range(240)), channels=2, bits=24, announced=announced))
    assert found.length == 40 and torch.equal(found.samples, due.samples)


def test_only_samples_may_have_no_size() -> None:
    refused(wav(before=b"JUNK" + struct.pack("<I", OPEN)), "no samples")
    refused(b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff" + bytes(40), "damaged")


@pytest.mark.parametrize("channels", [9, 256, 65535])
def test_more_channels_than_are_taken(channels: int) -> None:
    refused(wav(b"\0" * 4 * channels, channels=channels, bits=8), f"has {channels} channels; 8 are taken")


@pytest.mark.parametrize("rate", [0, 768_001, (1 << 32) - 1])
def test_rates_that_cannot_be(rate: int) -> None:
    refused(wav(rate=rate), "no rate|has a rate")


def test_more_bytes_of_samples_than_are_taken() -> None:
    limits = AudioLimits(decoded_bytes=4000)
    assert open_audio(wav(bytes(2000)), limits).length == 1000
    refused(wav(bytes(2002)), "has 4004 bytes of samples; 4000 are taken", limits)


def test_no_samples_and_no_header() -> None:
    refused(b"", "empty")
    refused(b"RIFF\0\0\0\0WAVE", "no samples")
    refused(wav()[:36], "no samples")
    refused(b"RIFF\0\0\0\0WAVEfmt \x04\0\0\0abcd", "damaged")
    refused(wav(before=(b"JUNK" + struct.pack("<I", 0)) * 2000), "no samples")
    refused(wav(before=b"JUNK" + struct.pack("<I", 1 << 31)), "no samples")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\0\0\0\x20ftypM4A ", "M4A or MP4 are not read"),
        (b"\x1a\x45\xdf\xa3....", "WebM or Matroska are not read"),
        (b"FORM....AIFF", "AIFF are not read"),
        (b".snd....", "AU are not read"),
        (b"<html>", "no WAV, FLAC, OGG or MP3"),
        (b"OggS" + b"\0" * 100, "OGG file is damaged"),
        (b"fLaC" + b"\0" * 100, "FLAC file is damaged"),
        (b"ID3" + b"\0" * 100, "MP3 file is damaged"),
        (wav(kind=2, bits=8), "are not read|damaged"),
    ],
)
def test_what_is_no_sound_that_is_read(data: bytes, match: str) -> None:
    refused(data, match)


def test_numbers_that_are_not_finite() -> None:
    for value in (np.nan, np.inf, -np.inf):
        refused(wav(np.array([0, value, 0], "<f4").tobytes(), bits=32, kind=3), "no finite numbers")


@pytest.mark.parametrize("format", FILES)
def test_files_that_end_early(format: str) -> None:
    data = FILES[format]
    for length in [*range(0, 200, 7), *range(200, len(data), max(1, len(data) // 50))]:
        with suppress(MediaError):
            assert open_audio(data[:length]).length <= 8000


@pytest.mark.parametrize("format", FILES)
@settings(max_examples=60, deadline=2000)
@given(places=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8))
def test_files_with_other_bytes(format: str, places: list[tuple[int, int]]) -> None:
    data = bytearray(FILES[format])
    for place, value in places:
        # Headers are where harm is done.
        data[(place if place % 2 else place % 128) % len(data)] = value
    try:
        made = open_audio(bytes(data))
    except MediaError:
        return
    assert made.samples.isfinite().all()
    assert made.channels <= 8
