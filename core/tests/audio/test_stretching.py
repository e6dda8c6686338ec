"""Another speed at the same pitch: the paper's formula, whatever the pieces, and what an ear would notice."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.audio.opening import open_audio
from bestiary.audio.stretching import Stretcher, stretch
from bestiary.errors import BestiaryError, MediaError, OptionError, RequestError

RATE = 16000
SPEEDS = [0.5, 0.8, 1.25, 2.0]


def tones(*pitches: float, seconds: float = 2.0, rate: int = RATE) -> torch.Tensor:
    times = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    return sum((0.3 * torch.sin(2 * math.pi * pitch * times) for pitch in pitches), torch.zeros(len(times))).float()


def noise(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(seed)) * 0.1


def middle(x: torch.Tensor) -> torch.Tensor:
    return x[len(x) // 4 : 3 * len(x) // 4]


def louder(x: torch.Tensor, than: torch.Tensor) -> float:
    """dB."""
    return 10 * math.log10(float(x.square().mean() / than.square().mean()))


def pitch(x: torch.Tensor, near: float) -> float:
    """Hz of the peak within a fifth of a pitch."""
    size = 1 << 18
    spectrum = torch.fft.rfft(x * torch.hann_window(len(x)), size).abs()
    start, end = int(0.8 * near * size / RATE), int(1.2 * near * size / RATE)
    return (start + int(spectrum[start:end].argmax())) * RATE / size


def centroid(x: torch.Tensor) -> float:
    """Hz, of magnitudes."""
    magnitudes = torch.stft(x, 512, 256, window=torch.hann_window(512), return_complex=True).abs().sum(1)
    return float((magnitudes * torch.arange(257)).sum() / magnitudes.sum()) * RATE / 512


def in_pieces(x: torch.Tensor, size: int, speed: float, rate: int = RATE) -> torch.Tensor:
    stretcher = Stretcher(rate, speed)
    return torch.cat([*(stretcher.push(piece) for piece in x.split(size) if len(x)), stretcher.finish()])


def of_the_paper(x: np.ndarray, rate: int, speed: float) -> np.ndarray:
    """y(n) = sum_k v(n - kL) x(n - kL + T(kL) + D(k)) / sum_k v(n - kL), one candidate for D(k) after the other."""
    L, reach, margin = round(0.02 * rate), round(0.01 * rate), rate // 4
    length = round(len(x) / speed)
    v = np.sin(np.pi * (np.arange(2 * L) + 0.5) / (2 * L)) ** 2
    x, y, weight = np.pad(x.astype(np.float64), margin), np.zeros(length + 4 * L), np.zeros(length + 4 * L)

    def frame(centre: int) -> np.ndarray:
        return x[margin + centre - L : margin + centre + L]

    centre = 0
    for k in range(-(-length // L) + 1):
        if k:
            follows, place = frame(centre + L), math.floor(k * L * speed + 0.5)
            found = [frame(place + move) for move in range(-reach, reach + 1)]
            alike = [follows @ one / (math.sqrt(one @ one) or 1) for one in found]
            centre = place + (int(np.argmax(alike)) - reach if max(alike) > 0 else 0)  # nothing is like silence
        y[k * L : (k + 2) * L] += v * frame(centre)  # one L late: the first frame begins before the sound
        weight[k * L : (k + 2) * L] += v
    return (y / np.maximum(weight, 1e-9))[L : L + length]


@pytest.mark.parametrize("rate", [8000, 22050])
@pytest.mark.parametrize("speed", [0.25, *SPEEDS, 4.0])
def test_the_formula(rate: int, speed: float) -> None:
    x = tones(170, 1234.5, seconds=1, rate=rate) + noise(rate)
    np.testing.assert_allclose(stretch(x, rate, speed).numpy(), of_the_paper(x.numpy(), rate, speed), atol=1e-4)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("pitches", [(60.0,), (440.0,), (3333.3,), (220.0, 1370.0)])
def test_pitches_and_loudness_stay(pitches: tuple[float, ...], speed: float) -> None:
    x = tones(*pitches)
    made = stretch(x, RATE, speed)
    assert len(made) == round(len(x) / speed)
    for one in pitches:
        assert pitch(middle(made), one) == pytest.approx(one, rel=0.005)
    assert abs(louder(middle(made), middle(x))) < 0.05


@pytest.mark.parametrize("speed", SPEEDS)
def test_noise_becomes_a_little_quieter(speed: float) -> None:
    """Halves that have nothing in common add up to three quarters of their power."""
    x = noise(RATE)
    assert -1.25 < louder(middle(stretch(x, RATE, speed)), middle(x)) < 0


@pytest.mark.parametrize("period", [0.008, 0.013, 0.02, 0.025])
def test_clicks_come_as_often_and_as_loud(period: float) -> None:
    x = torch.zeros(RATE)
    x[80 :: int(period * RATE)] = 1
    made = stretch(x, RATE, 2.0)
    clicks = made[made.abs() > 0.01]
    assert len(made) == RATE // 2
    assert abs(len(clicks) - x.sum() / 2) <= 1
    assert 0.98 < float(clicks.min()) <= float(clicks.max()) < 1.02


@pytest.mark.parametrize("speed", SPEEDS)
def test_speech(shared_data: Path, speed: float) -> None:
    pytest.importorskip("soundfile")
    sound = open_audio(shared_data / "media" / "1272-141231-0002.wav")
    x, made = sound.samples[0], stretch(sound.samples[0], sound.rate, speed)
    assert abs(louder(made, x)) < 0.3
    # What is high is least alike from period to period, and loses as noise does.
    assert 0.9 < centroid(made) / centroid(x) < 1


@pytest.mark.parametrize("size", [1, 7, 333, 4096])
@pytest.mark.parametrize("speed", [0.25, *SPEEDS, 4.0, 1.0])
def test_pieces_are_the_whole(size: int, speed: float) -> None:
    x = tones(170, 1234.5, seconds=0.4) + noise(6400)
    assert torch.equal(in_pieces(x, size, speed), stretch(x, RATE, speed))


@settings(max_examples=30)
@given(
    rate=st.sampled_from([1, 24, 50, 74, 75, 330, 1000]),
    speed=st.floats(0.25, 4),
    length=st.integers(0, 700),
    size=st.integers(1, 300),
)
def test_any_rate_and_speed(rate: int, speed: float, length: int, size: int) -> None:
    x = noise(length, seed=length)
    made = stretch(x, rate, speed)
    assert len(made) == round(length / speed)
    assert torch.equal(in_pieces(x, size, speed, rate), made)
    assert bool(made.isfinite().all())


def test_sound_comes_before_the_end() -> None:
    for speed in (0.25, 0.8, 1.25, 4.0):
        made = Stretcher(RATE, speed).push(noise(RATE))
        # Half a frame at the new speed, and what frames look ahead.
        assert len(made) > (RATE - 0.05 * RATE) / speed - 0.02 * RATE


@pytest.mark.parametrize("speed", [0.25, 0.8, 1.25, 4.0])
def test_sounds_of_little(speed: float) -> None:
    for length in (0, 1, 2, 100, 319, 320, 321, 640):
        made = stretch(noise(length), RATE, speed)
        assert len(made) == round(length / speed)
        assert bool(made.isfinite().all())
        assert torch.equal(in_pieces(noise(length), 50, speed), made)
    assert not stretch(torch.zeros(RATE), RATE, speed).any()


def test_silence_between_sounds() -> None:
    x = tones(300, seconds=1)
    x[4000:12000] = 0
    made = stretch(x, RATE, 1.25)
    assert bool(made.isfinite().all())
    assert not made[4000:8800].any()
    assert torch.equal(in_pieces(x, 777, 1.25), made)


def test_other_scales_and_no_numbers() -> None:
    x = noise(4000)
    for scale in (1e-30, 2.0**40):
        torch.testing.assert_close(stretch(x * scale, RATE, 0.8) / scale, stretch(x, RATE, 0.8))
    x[2000] = math.nan
    made = stretch(x, RATE, 0.8)
    assert len(made) == 5000
    assert 0 < int(made.isnan().sum()) < 5


def test_speed_one_is_the_sound() -> None:
    x = noise(500)
    assert torch.equal(stretch(x, RATE, 1.0), x)
    assert torch.equal(stretch(x, RATE, 1), x)
    assert stretch(x, RATE, 1.0).data_ptr() != x.data_ptr()


def test_what_came_belongs_to_the_caller() -> None:
    x, stretcher = noise(4000), Stretcher(RATE, 0.8)
    expected, piece = stretch(x, RATE, 0.8), torch.empty(100)
    made = []
    for part in x.split(100):
        made.append(stretcher.push(piece.copy_(part)))
    assert torch.equal(torch.cat([*made, stretcher.finish()]), expected)


def test_inference_mode_may_come_and_go() -> None:
    x = noise(4000)
    with torch.inference_mode():
        stretcher = Stretcher(RATE, 0.8)
        first = stretcher.push(x[:2000])
    rest = stretcher.push(x[2000:].requires_grad_())
    made = torch.cat([first, rest, stretcher.finish()])
    assert torch.equal(made, stretch(noise(4000), RATE, 0.8))
    assert not made.requires_grad


def test_a_minute_is_quick() -> None:
    x = noise(60 * 44100)
    start = time.process_time()
    assert len(stretch(x, 44100, 2.0)) == 30 * 44100
    assert time.process_time() - start < 5  # a third of a second on an idle core


@pytest.mark.parametrize(
    ("rate", "speed", "match"),
    [
        (RATE, 0.249, "speed is 0.249; a number from 0.25 to 4 is due"),
        (RATE, 4.001, "speed is"),
        (RATE, math.nan, "speed is"),
        (RATE, True, "speed is"),
        (RATE, "2", "speed is"),
        (RATE, None, "speed is"),
        (0, 2.0, "rate is 0"),
        (768_001, 2.0, "rate is"),
        (16000.0, 2.0, "rate is"),
        (True, 2.0, "rate is"),
    ],
)
def test_options_that_are_refused(rate: Any, speed: Any, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        Stretcher(rate, speed)
    with pytest.raises(OptionError, match=match):
        stretch(torch.zeros(5), rate, speed)


@pytest.mark.parametrize("samples", [torch.zeros(1, 5), torch.zeros(5, dtype=torch.float64), np.zeros(5), None])
@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_samples_that_are_refused(samples: Any, speed: float) -> None:
    with pytest.raises(MediaError, match=r"torch.float32 \[samples\] is due"):
        stretch(samples, RATE, speed)


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_an_end_is_one(speed: float) -> None:
    stretcher = Stretcher(RATE, speed)
    stretcher.finish()
    for again in (stretcher.finish, lambda: stretcher.push(torch.zeros(5))):
        with pytest.raises(RequestError, match="has ended"):
            again()
    assert issubclass(RequestError, BestiaryError)
