"""A picture of a sound: its waveform over its spectrogram."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch

from bestiary.audio.spectral import Spectral, log_mel
from bestiary.audio.waveform import Waveform
from bestiary.errors import OptionError

_COLUMNS = 2000
"""Of the picture; of a longer sound each shows its lowest and highest sample."""


def draw(waveform: Waveform, file: str | Path, *, title: str = "", how: Spectral | None = None) -> None:
    """Draw the mean of the channels into a file whose ending names a format of matplotlib.

    `how` is the spectrogram's; its rate is taken from the sound.  None: frames of 1/40 second, drawn in decibels.
    Raises OptionError where matplotlib is not installed, or the file cannot be written.
    """
    if find_spec("matplotlib") is None:
        raise OptionError("A picture needs matplotlib.", fix='pip install "bestiary-core[plot]"')
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    place, kinds = Path(file), sorted(FigureCanvasAgg.get_supported_filetypes())
    if place.suffix.removeprefix(".").lower() not in kinds:
        raise OptionError(f"{place.name} is no name of a picture.", fix=f"let it end in one of {', '.join(kinds)}")
    if not waveform.length:
        raise OptionError("A sound without samples is not drawn.")
    mono = waveform.mono()
    how = replace(how, rate=mono.rate) if how is not None else _decibels(mono)
    figure = Figure(figsize=(11, 6), layout="constrained")
    figure.suptitle(title.replace("$", r"\$"))  # a path with dollars is no formula
    above, below = figure.subplots(2, 1, sharex=True)
    low, high = _envelope(mono.samples[0])
    times = torch.linspace(0, mono.duration, len(low)).numpy()
    above.fill_between(times, low.numpy(), high.numpy(), linewidth=0.5)
    above.set_ylabel("amplitude")
    above.grid(alpha=0.3)
    made = log_mel(torch.nn.functional.pad(mono.samples[0], (0, max(0, how.n_fft - mono.length))), how)
    extent = (0.0, mono.duration, 0.0, float(how.n_mels))
    image = below.imshow(made.numpy(), origin="lower", aspect="auto", extent=extent, vmin=float(made.max()) - 80)
    figure.colorbar(image, ax=[above, below], label="dB" if how.log == "db" else how.log)
    below.set_xlabel("seconds")
    below.set_ylabel("mel band")
    try:
        figure.savefig(place, dpi=120)
    except OSError as error:
        raise OptionError(f"The picture could not be written: {error.strerror or error}", where=place) from error


def _decibels(waveform: Waveform) -> Spectral:
    size = max(16, waveform.rate // 40)
    # At least as far apart as the columns of the picture: of hours no more is seen.
    hop = max(1, size // 4, waveform.length // _COLUMNS)
    return Spectral(rate=waveform.rate, n_fft=size, hop_length=hop, n_mels=min(80, max(1, size // 8)), log="db")


def _envelope(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if len(samples) <= 2 * _COLUMNS:
        return samples, samples
    parts = torch.nn.functional.pad(samples, (0, -len(samples) % _COLUMNS)).view(_COLUMNS, -1)
    return parts.amin(1), parts.amax(1)
