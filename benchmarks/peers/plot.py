"""The picture of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from summary import Row, rows, speeds

WIDTH = 0.8
"""Of all bars of a format together."""
UNITS = {"first": ("first token of a fresh process", "seconds", 1.0), "anonymous": ("anonymous memory", "GB", 1e9)}


def draw(run: Mapping[str, Any], file: Path) -> None:
    """A column of plots for each model: each speed, loading and memory; engines beside each other."""
    from matplotlib.figure import Figure

    found = list(rows(run))
    names = [name for name in (*speeds(run), *UNITS) if any(name in row.values for row in found)]
    models, engines = list(dict.fromkeys(row.model for row in found)), list(dict.fromkeys(row.engine for row in found))
    kinds = list(dict.fromkeys(row.format for row in found))
    size = (max(4.0, 1.0 + 1.1 * len(kinds)) * len(models), 2.3 * len(names) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"{run['work']['threads']} threads on {run['machine']}".replace("$", r"\$"), fontsize=10)
    shown: dict[str, Any] = {}
    for plots, name in zip(figure.subplots(len(names), len(models), squeeze=False), names, strict=True):
        for plot, model in zip(plots, models, strict=True):
            title, unit, scale = UNITS.get(name, (name, "tokens per second", 1.0))
            _bars(plot, [row for row in found if row.model == model], name, engines, scale)
            plot.set_title(f"{model}, {title}", fontsize=10)
            plot.set_ylabel(unit, fontsize=8)
            plot.set_ylim(bottom=0)
            plot.grid(axis="y", alpha=0.3)
            plot.set_axisbelow(True)
            handles, labels = plot.get_legend_handles_labels()
            shown |= dict(zip(labels, handles, strict=True))
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=len(shown))
    figure.savefig(file, dpi=110)


def _bars(plot: Any, found: Sequence[Row], name: str, engines: Sequence[str], scale: float) -> None:
    """The bars of one model; in that of decoding, the limit of each format."""
    kinds = list(dict.fromkeys(row.format for row in found))
    width = WIDTH / len(engines)
    for number, engine in enumerate(engines):
        own = [row for row in found if row.engine == engine and name in row.values]
        if own:
            values = [row.values[name] for row in own]
            places = [kinds.index(row.format) + (number + 0.5) * width - WIDTH / 2 for row in own]
            below = [(value.median - value.least) / scale for value in values]
            above = [(value.most - value.median) / scale for value in values]
            heights = [value.median / scale for value in values]
            plot.bar(places, heights, width, yerr=[below, above], capsize=2, color=f"C{number}", label=engine)
    if name == "decode":
        for kind in kinds:
            limits = [row.limit for row in found if row.format == kind and row.limit is not None]
            if limits:
                at, limit = kinds.index(kind), sorted(limits)[len(limits) // 2]
                plot.hlines(limit, at - 0.45, at + 0.45, colors="black", linestyles="dashed", label="roofline")
    plot.set_xticks(range(len(kinds)), kinds, fontsize=8)
    plot.set_xlim(-0.5, len(kinds) - 0.5)
