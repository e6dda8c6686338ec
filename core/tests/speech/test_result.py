"""Speech into files: where a format has not its rate, it gets the next one that it has."""

from pathlib import Path

import pytest
import torch

from bestiary.audio.opening import open_audio
from bestiary.audio.saving import rate_for
from bestiary.audio.waveform import Waveform
from bestiary.speech.result import Speech

pytest.importorskip("soundfile")


@pytest.mark.parametrize(
    ("ending", "rate", "due"),
    [
        *(("wav", 44100, 44100), ("mp3", 44100, 44100), ("mp3", 9000, 11025), ("mp3", 96000, 48000)),
        *(("opus", 44100, 48000), ("opus", 16000, 16000), ("ogg", 44100, 44100), ("ogg", 400_000, 200_000)),
    ],
)
def test_rates_of_formats(tmp_path: Path, ending: str, rate: int, due: int) -> None:
    assert rate_for(ending, rate) == due
    tone = torch.sin(torch.arange(rate // 4) / rate * 2 * torch.pi * 440)[None] / 2
    Speech(Waveform(tone, rate), 0, True).save(tmp_path / f"out.{ending}")
    found = open_audio(tmp_path / f"out.{ending}")
    assert found.duration == pytest.approx(0.25, abs=0.1)
    assert found.rate == due or ending == "opus"  # whose decoders give 48,000 Hz or what was said
