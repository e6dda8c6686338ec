"""The picture of `bestiary bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bestiary.errors import OptionError

# What may run along the axis, the first with several values; and what stands under it.
_AXES = {
    "depth": "tokens in the cache before the prompt",
    "requests": "requests at once",
    "prompt": "tokens of the prompt",
    "generate": "tokens generated",
}
_SPEEDS = {
    "decode_tokens_per_second": "Generation",
    "prompt_tokens_per_second": "Prompt",
}


def check_plot(file: Path) -> None:
    """OptionError where no picture could be drawn into a file; to be asked before the measurement."""
    if find_spec("matplotlib") is None:
        raise OptionError("A picture needs matplotlib.", fix='pip install "bestiary-core[plot]"')
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    kinds = sorted(FigureCanvasAgg.get_supported_filetypes())
    if file.suffix.removeprefix(".").lower() not in kinds:
        raise OptionError(f"{file.name} is no name of a picture.", fix=f"let it end in one of {', '.join(kinds)}")
    if file.is_dir() or not file.parent.is_dir():
        raise OptionError("The picture cannot be written there.", where=file, fix="name a file in a folder that exists")


def draw_speeds(rows: Sequence[Mapping[str, Any]], title: str, file: Path) -> None:
    """Draw what `measure` gave: both speeds along what varies, a line for each combination of all else that does."""
    from matplotlib.figure import Figure

    varying = [name for name in _AXES if len({row[name] for row in rows}) > 1]
    axis = varying[0] if varying else "requests"
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(title.replace("$", r"\$"))  # a path with dollars is no formula
    for plot, (speed, name) in zip(figure.subplots(1, 2), _SPEEDS.items(), strict=True):
        lines: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            label = ", ".join(f"{other} {row[other]}" for other in varying if other != axis)
            lines.setdefault(label, []).append(row)
        for label, members in lines.items():
            ordered = sorted(members, key=lambda row: row[axis])
            plot.plot([row[axis] for row in ordered], [row[speed] for row in ordered], marker="o", label=label)
        plot.set_title(f"{name}, all requests together")
        plot.set_xlabel(_AXES[axis])
        plot.set_ylabel("tokens per second")
        places = sorted({row[axis] for row in rows})
        if len(places) <= 8:
            plot.set_xticks(places)
        plot.set_ylim(bottom=0)
        plot.grid(alpha=0.3)
        if len(lines) > 1:
            plot.legend()
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise OptionError(f"The picture could not be written: {error.strerror or error}", where=file) from error
