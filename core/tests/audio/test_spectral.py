"""Spectrograms and mel filters against transformers, on real speech."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bestiary.audio import spectral
from bestiary.audio.mel import frequency_of, mel_filters, mel_of
from bestiary.audio.opening import open_audio
from bestiary.audio.spectral import WHISPER, Spectral, log_mel, mel_spectrogram, spectrogram, stft
from bestiary.errors import ConfigError, MediaError

SPEECH = ["jfk.flac", "sample_speech.wav", "1272-141231-0002.wav"]


def window(shared_data: Path, name: str) -> torch.Tensor:
    """Thirty seconds at 16 kHz."""
    pytest.importorskip("soundfile")
    samples = open_audio(shared_data / "media" / name).mono().resampled(16000).samples[0]
    return F.pad(samples, (0, 480_000 - len(samples)))


def scaled(mel: torch.Tensor) -> torch.Tensor:
    """Whisper's last step."""
    return (torch.maximum(mel, mel.max() - 8) + 4) / 4


@pytest.mark.parametrize("name", SPEECH)
@pytest.mark.parametrize("bands", [80, 128])
def test_log_mel_of_speech(shared_data: Path, name: str, bands: int) -> None:
    from transformers import WhisperFeatureExtractor

    samples = window(shared_data, name)
    wanted = WhisperFeatureExtractor(feature_size=bands)(samples.numpy(), sampling_rate=16000, return_tensors="pt")
    made = scaled(log_mel(samples, replace(WHISPER, n_mels=bands))[:, :-1])
    torch.testing.assert_close(made, wanted["input_features"][0], rtol=0, atol=1e-5)


def test_log_mel_as_recorded(shared_data: Path) -> None:
    """Ten frames of it from another program, whose own tolerance is a hundredth."""
    text = (shared_data / "media/whisper_mel_expected/expected_output.txt").read_text()
    wanted = torch.tensor([[float(value) for value in line.split(",")] for line in text.split()])
    made = scaled(log_mel(window(shared_data, "1272-141231-0002.wav")))
    torch.testing.assert_close(made[:, : wanted.shape[1]], wanted, rtol=0, atol=1e-2)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize("norm", ["slaney", None])
@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "lowest", "highest"),
    [(16000, 400, 80, 0, 8000), (16000, 400, 128, 0, 8000), (22050, 1024, 64, 30, 9000), (44100, 2048, 100, 0, 22050)],
)
def test_mel_filters(
    rate: int, n_fft: int, n_mels: int, lowest: float, highest: float, scale: str, norm: str | None
) -> None:
    from transformers.audio_utils import mel_filter_bank

    wanted = mel_filter_bank(n_fft // 2 + 1, n_mels, lowest, highest, rate, norm, scale)
    made = mel_filters(rate, n_fft, n_mels, lowest, highest, scale, norm)
    np.testing.assert_allclose(made.numpy(), wanted.T, rtol=0, atol=1e-6 * wanted.max())


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_the_scales_lead_back(scale: str) -> None:
    frequencies = torch.linspace(0, 20000, 100, dtype=torch.float64)
    torch.testing.assert_close(frequency_of(mel_of(frequencies, scale), scale), frequencies)
    assert float(mel_of(torch.tensor(1000.0), scale)) == pytest.approx(15 if scale == "slaney" else 1000, rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"power": 1.0},
        {"power": 0.5},
        {"center": False},
        {"pad_mode": "constant"},
        {"window": "hamming", "win_length": 300},
        {"window": "ones"},
        {"n_fft": 512, "win_length": 400, "hop_length": 100},
    ],
)
def test_spectrograms(changes: dict[str, Any]) -> None:
    from transformers.audio_utils import spectrogram as theirs
    from transformers.audio_utils import window_function

    how = replace(WHISPER, **changes)
    samples = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    length = how.win_length or how.n_fft
    name = {"ones": "boxcar"}.get(how.window, how.window)
    frame = np.zeros(how.n_fft)
    left = (how.n_fft - length) // 2
    frame[left : left + length] = np.ones(length) if name == "boxcar" else window_function(length, name)
    wanted = theirs(
        samples, frame, how.n_fft, how.hop_length, power=how.power, center=how.center, pad_mode=how.pad_mode
    )
    made = spectrogram(torch.from_numpy(samples), how)
    np.testing.assert_allclose(made.numpy(), wanted, rtol=0, atol=1e-5 * wanted.max())


def test_rows_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = torch.randn(2, 3, 5000, generator=torch.Generator().manual_seed(0))
    whole = mel_spectrogram(samples)
    assert stft(samples).shape == (2, 3, 201, 32)
    assert whole.shape == (2, 3, 80, 32)
    torch.testing.assert_close(mel_spectrogram(samples[1, 2]), whole[1, 2], rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(spectral, "_BLOCK", 5)
    torch.testing.assert_close(mel_spectrogram(samples), whole, rtol=1e-4, atol=1e-6)


def test_logarithms() -> None:
    samples = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    made = {log: log_mel(samples, replace(WHISPER, log=log)) for log in ("log", "log10", "db")}
    torch.testing.assert_close(made["db"], made["log10"] * 10)
    torch.testing.assert_close(made["log"], made["log10"] * np.log(10), rtol=1e-5, atol=1e-5)
    assert float(log_mel(torch.zeros(2000)).max()) == -10


def test_a_sound_that_is_too_short() -> None:
    with pytest.raises(MediaError, match="has 200 samples; its spectrum needs 201"):
        stft(torch.zeros(200))
    with pytest.raises(MediaError, match="needs 400"):
        mel_spectrogram(torch.zeros(399), replace(WHISPER, center=False))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0},
        {"n_fft": 1},
        {"n_fft": True},
        {"hop_length": 0},
        {"win_length": 401},
        {"window": "kaiser"},
        {"pad_mode": "wrap"},
        {"power": 0},
        {"power": float("nan")},
        {"n_mels": 1 << 20},
        {"scale": "bark"},
        {"norm": "l2"},
        {"log": "log2"},
        {"floor": -1},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Spectral(**wrong)


def test_filters_that_cannot_be() -> None:
    for arguments in [(0, 400, 80), (16000, 400, 80, 0.0, 9000.0), (16000, 400, 80, 500.0, 400.0)]:
        with pytest.raises(ConfigError, match="cannot be"):
            mel_filters(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown"):
        mel_filters(16000, 400, 80, scale="bark")
