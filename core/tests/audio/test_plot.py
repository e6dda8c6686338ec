"""Pictures of sounds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bestiary.audio.plot import draw
from bestiary.audio.spectral import WHISPER
from bestiary.audio.waveform import Waveform
from bestiary.errors import OptionError

pytest.importorskip("matplotlib")
Tone = Callable[..., Waveform]


@pytest.mark.parametrize("seconds", [0.001, 3.0])
def test_a_picture_is_drawn(tone: Tone, tmp_path: Path, seconds: float) -> None:
    draw(tone(channels=2, seconds=seconds), tmp_path / "a.png", title="$3 of a \\tone", how=WHISPER)
    draw(tone(seconds=seconds), tmp_path / "b.svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "b.svg").stat().st_size > 1000


def test_what_cannot_be_drawn(tone: Tone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="no name of a picture"):
        draw(tone(), tmp_path / "a.wav")
    with pytest.raises(OptionError, match="without samples"):
        draw(Waveform(torch.zeros(1, 0), 8000), tmp_path / "a.png")
    with pytest.raises(OptionError, match="could not be written"):
        draw(tone(), tmp_path / "absent" / "a.png")
    monkeypatch.setattr("bestiary.audio.plot.find_spec", lambda name: None)
    with pytest.raises(OptionError, match="needs matplotlib"):
        draw(tone(), tmp_path / "a.png")
