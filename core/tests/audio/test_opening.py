"""Sources of every kind, and what they become."""

import base64
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bestiary.audio.limits import AudioLimits
from bestiary.audio.opening import open_audio
from bestiary.audio.saving import encode
from bestiary.audio.waveform import Waveform
from bestiary.errors import MediaError
from bestiary.media.limits import MediaLimits

pytest.importorskip("soundfile")
Tone = Callable[..., Waveform]


def test_every_way_to_name_a_file(tone: Tone, tmp_path: Path) -> None:
    sound = tone(channels=2)
    data = encode(sound, encoding="float")
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    url = "data:audio/wav;base64," + base64.b64encode(data).decode()
    for source in (path, str(path), path.as_uri(), data, bytearray(data), BytesIO(data), url):
        opened = open_audio(source)
        assert opened.rate == 16000
        assert torch.equal(opened.samples, sound.samples)
    with path.open("rb") as file:
        assert torch.equal(open_audio(file).samples, sound.samples)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_the_encodings_of_wav(tone: Tone, kind: str, subtype: str) -> None:
    import soundfile

    sound, stream = tone(channels=3), BytesIO()
    soundfile.write(stream, sound.samples.T.numpy(), 16000, subtype, format=kind)
    opened = open_audio(stream)
    assert opened.samples.shape == sound.samples.shape
    torch.testing.assert_close(opened.samples, sound.samples, rtol=0, atol=0.02)


def to_a_pipe(data: bytes, left: int | None = None) -> bytes:
    """A WAV file as ffmpeg writes it where it cannot go back to its sizes, cut to `left` bytes of samples."""
    place = data.index(b"data")
    made = b"RIFF\xff\xff\xff\xff" + data[8:place] + b"LIST\x06\0\0\0ISFT\0\0data\xff\xff\xff\xff"
    return made + data[place + 8 :][:left]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_wav_that_went_through_a_pipe(tone: Tone, kind: str, subtype: str, channels: int) -> None:
    import soundfile

    sound, stream = tone(seconds=0.01, channels=channels), BytesIO()
    soundfile.write(stream, sound.samples.T.numpy(), 16000, subtype, format=kind)
    data = stream.getvalue()
    data = data.replace(b"PEAK", b"JUNK")  # libsndfile's own: where the loudest sample of floats is
    whole = open_audio(data).samples
    width = (len(data) - data.index(b"data") - 8) // sound.length
    for left in (0, 1, width - 1, width, width + 1, 7 * width, 8 * width - 1, 159 * width, 160 * width):
        opened = open_audio(to_a_pipe(data, left))
        assert torch.equal(opened.samples, whole[:, : left // width]), left


@pytest.mark.parametrize(
    ("name", "rate", "channels", "length"),
    [
        ("1272-141231-0002.wav", 16000, 1, 213360),
        ("jfk.flac", 44100, 2, 485100),
        ("sample_speech.wav", 44100, 1, 400384),
        ("dia_example_prompt.mp3", 44100, 1, 162042),
        ("mtmd_test-2.mp3", 44100, 1, 769089),
    ],
)
def test_real_recordings(shared_data: Path, name: str, rate: int, channels: int, length: int) -> None:
    opened = open_audio(shared_data / "media" / name)
    assert (opened.rate, opened.channels, opened.length) == (rate, channels, length)
    assert 0.05 < float(opened.samples.abs().max()) <= 1
    assert opened.duration == length / rate
    assert opened.mono().samples.shape == (1, length)


@pytest.mark.parametrize(
    ("array", "scale"),
    [
        (np.array([0, 16384, -32768], np.int16), 32768),
        (np.array([0, 1 << 30, -(1 << 31)], np.int32), 1 << 31),
        (np.array([0, 64, -128], np.int8), 128),
        (np.array([0, 0.5, -1], np.float32), 1),
        (np.array([0, 0.5, -1], np.float64), 1),
        (np.array([0, 0.5, -1], ">f4"), 1),
        (torch.tensor([0, 0.5, -1], dtype=torch.bfloat16), 1),
    ],
)
def test_arrays(array: Any, scale: int) -> None:
    opened = open_audio(array, rate=8000)
    assert opened.samples.tolist() == [[0, 0.5, -1]]
    assert open_audio(array.reshape(3, 1)[:, [0, 0]].T, rate=8000).channels == 2
    assert open_audio({"array": array, "sampling_rate": 8000, "path": None}).rate == 8000
    assert open_audio(opened) == opened or torch.equal(open_audio(opened).samples, opened.samples)


def test_what_is_opened_is_its_own() -> None:
    array = np.zeros(10, np.float32)
    opened = open_audio(array, rate=8000)
    array[:] = 1
    assert not opened.samples.any()


@pytest.mark.parametrize(
    ("source", "rate", "match"),
    [
        (np.zeros(10, np.float32), None, "does not tell its rate"),
        (np.zeros(10, np.float32), 0, "rate of 0 Hz"),
        (np.zeros(10, np.float32), 16000.0, "rate of 16000.0 Hz"),
        (np.zeros((100, 2), np.float32), 16000, None),
        (np.zeros((100, 20), np.float32), 16000, "has 100 channels"),
        (np.zeros((2, 2, 2), np.float32), 16000, "neither"),
        (np.zeros((0, 5), np.float32), 16000, "neither"),
        (np.zeros(10, np.uint16), 16000, "Arrays of uint16"),
        (np.zeros(10, np.complex64), 16000, "Arrays of complex64"),
        (np.array(["a"]), 16000, "no sounds"),
        (torch.zeros(10, dtype=torch.int64), 16000, "Arrays of int64"),
        (np.full(10, np.nan, np.float32), 16000, "no finite"),
        (np.zeros(1801 * 100, np.float32), 100, "lasts 30.0 minutes"),
        ([0.0, 1.0], 16000, "A list is not one sound"),
        ({"array": np.zeros(3)}, None, "mapping is not that of a sound"),
        ({"array": np.zeros(3), "sampling_rate": 5}, 6, "rate of 5 Hz, and 6 were said"),
        (b"RIFF", 16000, "tells its rate itself"),
        (3, None, "type int"),
        (Waveform(torch.zeros(9, 40), 8000), None, "has 9 channels"),
    ],
)
def test_what_is_refused(source: Any, rate: Any, match: str | None) -> None:
    with pytest.raises(MediaError, match=match or "channels last"):
        open_audio(source, rate=rate)


def test_where_sounds_may_come_from(tone: Tone, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(tone()))
    closed = AudioLimits(source=MediaLimits(local=False, remote="off"))
    with pytest.raises(MediaError, match="not opened here"):
        open_audio(path, closed)
    with pytest.raises(MediaError, match=r"127\.0\.0\.1"):
        open_audio("http://127.0.0.1/a.wav")
    with pytest.raises(MediaError, match="more than 100 bytes"):
        open_audio(path, AudioLimits(source=MediaLimits(bytes=100)))
    with pytest.raises(MediaError, match="cannot be opened"):
        open_audio(tmp_path / "absent.wav")


@pytest.mark.parametrize("samples", [torch.zeros(3), torch.zeros(1, 3, dtype=torch.float64), np.zeros((1, 3))])
def test_a_waveform_has_one_form(samples: Any) -> None:
    with pytest.raises(MediaError, match="float32"):
        Waveform(samples, 16000)


def test_opening_needs_no_more_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from bestiary.errors import OptionError

    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(OptionError, match="bestiary-core"):
        open_audio(b"fLaC" + b"\0" * 50)
    assert open_audio(np.zeros(4, np.float32), rate=8000).length == 4
