"""What the commands that make sounds and those that hear them share."""

from __future__ import annotations

from pathlib import Path

from bestiary.cli.kinds import Given


def check_sounds(given: Given) -> None:
    """Raises OptionError where sounds can be neither read nor written here, or the picture of `--plot` not drawn."""
    from bestiary.audio.library import soundfile
    from bestiary.cli.bench_plot import check_plot

    soundfile()
    if "plot" in given:
        check_plot(Path(given["plot"]).expanduser())


def speed(duration: float, seconds: float) -> str:
    """Seconds of sound, those that they took, and how many times faster that is than listening."""
    return f"{duration:.1f} s of sound in {seconds:.1f} s, x{duration / max(seconds, 1e-3):.1f} of real time"
