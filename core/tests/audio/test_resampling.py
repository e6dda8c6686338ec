"""Other rates: the formula of torchaudio, and what must hold of any."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bestiary.audio import resampling
from bestiary.audio.resampling import resample
from bestiary.audio.waveform import Waveform
from bestiary.errors import MediaError, OptionError

RATES = [(44100, 16000), (16000, 44100), (48000, 16000), (8000, 24000), (22050, 16000), (3, 2), (16000, 15999)]


def expected(x: np.ndarray, source: int, target: int) -> np.ndarray:
    """Sample by sample, as the documentation of torchaudio.functional.resample states it."""
    divisor = math.gcd(source, target)
    source, target = source // divisor, target // divisor
    base = min(source, target) * 0.99
    made = np.zeros(-(-target * len(x) // source))
    for number in range(len(made)):
        t = np.clip((np.arange(len(x)) / source - number / target) * base, -6, 6)
        made[number] = (np.sinc(t) * np.cos(t * np.pi / 12) ** 2 * base / source) @ x
    return made


@pytest.mark.parametrize(("source", "target"), RATES)
def test_the_formula(source: int, target: int) -> None:
    x = np.random.default_rng(3).standard_normal(700)
    made = resample(torch.from_numpy(x).float(), source, target)
    np.testing.assert_allclose(made.numpy(), expected(x, source, target), atol=1e-5)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_both_ways_to_compute_it_are_one(monkeypatch: pytest.MonkeyPatch, source: int, target: int) -> None:
    x = torch.randn(2, 3, 2000, generator=torch.Generator().manual_seed(0))
    first = resample(x, source, target)
    monkeypatch.setattr(resampling, "_LARGEST", 0)
    monkeypatch.setattr(resampling, "_BLOCK", 1000)
    torch.testing.assert_close(resample(x, source, target), first, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_torchaudio_agrees(source: int, target: int) -> None:
    try:
        import torchaudio
    except (ImportError, OSError) as error:
        pytest.skip(f"torchaudio does not import here: {error}")
    x = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))
    theirs = torchaudio.functional.resample(x, source, target)
    torch.testing.assert_close(resample(x, source, target), theirs, rtol=0, atol=1e-3)
    torch.testing.assert_close(resample(x, source, target, method="torchaudio"), theirs)


@pytest.mark.parametrize("method", ["sinc", "soxr"])
@pytest.mark.parametrize(("source", "target"), RATES[:5])
def test_a_tone_stays_one(method: str, source: int, target: int) -> None:
    if method == "soxr":
        pytest.importorskip("soxr")
    tone = torch.sin(2 * math.pi * 440 * torch.arange(source) / source)
    made = resample(tone, source, target, method=method)
    assert len(made) == target
    wanted = torch.sin(2 * math.pi * 440 * torch.arange(target) / target)
    torch.testing.assert_close(made[500:-500], wanted[500:-500], rtol=0, atol=2e-3)


def test_what_the_new_rate_cannot_hold_is_gone() -> None:
    tone = torch.sin(2 * math.pi * 12000 * torch.arange(44100) / 44100)
    assert float(resample(tone, 44100, 16000)[500:-500].abs().max()) < 1e-2


def test_rates_without_a_common_divisor_need_little_memory() -> None:
    x = torch.randn(1, 200, generator=torch.Generator().manual_seed(0))
    assert resample(x, 767_999, 768_000).shape == (1, 201)
    assert resample(x[:, :2], 7, 767_999).shape[1] == math.ceil(2 * 767_999 / 7)


def test_shapes_and_types() -> None:
    assert resample(torch.zeros(2, 0), 3, 2).shape == (2, 0)
    assert resample(torch.zeros(5, dtype=torch.float64), 3, 3).dtype == torch.float32
    assert resample(torch.zeros(1), 44100, 16000).shape == (1,)
    assert Waveform(torch.zeros(2, 300), 300).resampled(200).samples.shape == (2, 200)


def test_what_is_refused() -> None:
    for rate in (0, -1, 1.5, True, None):
        with pytest.raises(OptionError, match="rate of"):
            resample(torch.zeros(5), 8000, rate)  # type: ignore[arg-type]
        with pytest.raises(MediaError, match="rate of"):
            Waveform(torch.zeros(1, 5), 8000).resampled(rate)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no way to resample"):
        resample(torch.zeros(5), 8000, 4000, method="linear")


def test_torchaudio_is_called_where_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    library = SimpleNamespace(functional=SimpleNamespace(resample=lambda x, source, target: x[:, : 250 * target] + 7))
    for module, due in ((None, resample(x, 2, 1, method="sinc")), (library, x[:, :250] + 7)):
        monkeypatch.setitem(sys.modules, "torchaudio", module)
        resampling._imports.cache_clear()
        assert torch.equal(resample(x, 2, 1), due)
    resampling._imports.cache_clear()


@pytest.mark.parametrize("method", ["torchaudio", "soxr"])
def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setitem(sys.modules, method, None)
    with pytest.raises(OptionError, match="must import"):
        resample(torch.zeros(5), 8000, 4000, method=method)
