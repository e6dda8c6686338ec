"""What is written is what is read again, as nearly as a format keeps it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bestiary.audio.opening import open_audio
from bestiary.audio.saving import encode, save
from bestiary.audio.waveform import Waveform
from bestiary.errors import OptionError

pytest.importorskip("soundfile")
Tone = Callable[..., Waveform]


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_sixteen_bits_survive(tone: Tone, tmp_path: Path, format: str) -> None:
    sound = tone(channels=2)
    save(sound, tmp_path / f"a.{format}")
    once = open_audio(tmp_path / f"a.{format}")
    assert once.rate == sound.rate
    torch.testing.assert_close(once.samples, sound.samples, rtol=0, atol=0.5 / 32768)
    assert torch.equal(open_audio(encode(once, format)).samples, once.samples)


def test_floats_survive(tone: Tone) -> None:
    loud = Waveform(tone().samples * 5, 16000)
    assert torch.equal(open_audio(encode(loud, encoding="float")).samples, loud.samples)


def test_what_is_beyond_full_scale_is_cut() -> None:
    loud = Waveform(torch.tensor([[-7.0, -1.0, 0.0, 1.0, 7.0]]), 8000)
    assert open_audio(encode(loud)).samples.tolist() == [[-1.0, -1.0, 0.0, 32767 / 32768, 32767 / 32768]]


@pytest.mark.parametrize(("format", "rate"), [("ogg", 44100), ("opus", 48000), ("mp3", 24000)])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_others_sound_alike(tone: Tone, tmp_path: Path, format: str, rate: int, channels: int) -> None:
    sound = tone(rate, 3.0, channels)
    save(sound, tmp_path / f"a.{format}")
    opened = open_audio(tmp_path / f"a.{format}")
    assert (opened.rate, opened.channels) == (rate, channels)
    assert abs(opened.length - sound.length) < rate / 10
    spectra = [torch.fft.rfft(rows.samples[:, rate // 2 : rate // 2 + rate]).abs() for rows in (sound, opened)]
    assert torch.equal(spectra[0].argmax(-1), spectra[1].argmax(-1))
    torch.testing.assert_close(spectra[0].amax(-1), spectra[1].amax(-1), rtol=0.05, atol=0)


def test_a_long_sound_is_written_piece_by_piece(tone: Tone) -> None:
    sound = tone(8000, 60.0)
    assert open_audio(encode(sound, "ogg")).length == sound.length


@pytest.mark.parametrize(
    ("format", "rate", "channels", "match"),
    [
        ("aac", 16000, 1, "not written as 'aac'"),
        ("mp3", 16000, 3, "at most 2 channels"),
        ("mp3", 96000, 1, "no rate of 96000 Hz"),
        ("opus", 44100, 1, "no rate of 44100 Hz"),
        ("flac", 700000, 1, "at most 655350"),
        ("flac", 16000, 9, "at most 8 channels"),
    ],
)
def test_what_a_format_cannot_hold(tone: Tone, format: str, rate: int, channels: int, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        encode(tone(rate, 0.01, channels), format)


def test_what_is_no_sound() -> None:
    with pytest.raises(OptionError, match="without samples"):
        encode(Waveform(torch.zeros(1, 0), 8000))
    with pytest.raises(OptionError, match="no finite"):
        encode(Waveform(torch.tensor([[float("nan")]]), 8000))
    with pytest.raises(OptionError, match="no encoding 'float'"):
        encode(Waveform(torch.zeros(1, 5), 8000), "flac", encoding="float")


def test_where_nothing_can_be_written(tone: Tone, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be written"):
        save(tone(), tmp_path / "absent" / "a.wav")
    with pytest.raises(OptionError, match="not written as ''"):
        save(tone(), tmp_path / "a")


def test_a_full_disk_leaves_nothing(tone: Tone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OptionError, match="No space left"):
        save(tone(), tmp_path / "a.wav")
    assert not list(tmp_path.iterdir())
