"""The table of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from summary import Row, Value, rows, speeds


def table(run: Mapping[str, Any]) -> str:
    """Markdown; medians, in brackets the least and the most, and the ratio to the fastest peer."""
    names, work = speeds(run), run["work"]
    titles = {"prefill": f"prefill {work['prompt']}", "decode": f"decode {work['generate']}"}
    head = ["model", "format", "engine"]
    for name in names:
        head += [titles.get(name, name)] + (["of roofline"] if name == "decode" else [])
    lines = [[*head, "load s", "first token s", "anonymous MB", "peak MB", "others"]]
    lines.append(["---"] * len(lines[0]))
    found = list(rows(run))
    for row in found:
        cells = [row.model, row.format, row.engine]
        for name in names:
            cells.append(_speed(row.values.get(name)))
            if name == "decode":
                cells.append(_share(row.roofline))
        cells += [_spread(row.values.get(name), 1, 1) for name in ("load", "first")]
        cells += [_spread(row.values.get(name), 1e6, 0) for name in ("anonymous", "peak")]
        lines.append([*cells, f"{row.others:.2f}"])
    return "\n".join([*_notes(run, found), "", *(f"| {' | '.join(cells)} |" for cells in lines)])


def _notes(run: Mapping[str, Any], found: Sequence[Row]) -> list[str]:
    bandwidth = sorted(sample["bandwidth"] / 1e9 for sample in run["samples"])
    work = run["work"]
    engines = ", ".join(f"{engine} {version}" for engine, version in run["engines"].items())
    engines += "".join(f", {name}={value}" for name, value in run["environment"].items())
    most = f"memory is read at {bandwidth[len(bandwidth) // 2]:.1f} ({bandwidth[0]:.1f}-{bandwidth[-1]:.1f}) GB/s"
    rounds = len({sample["round"] for sample in run["samples"]})
    notes = [
        f"{engines}; {work['threads']} threads on {run['machine']}; {rounds} rounds; {most}.",
        "Tokens per second: median (least-most), and x the ratio to the fastest peer (median over rounds).  The "
        "roofline is that bandwidth, as measured before each process, over the bytes of the weights.  others: cores "
        "that other processes took at most.",
    ]
    if "requests" in work["parts"]:
        notes.append(
            f"Requests at once: prompts of {work['together_prompt']} tokens and a little more, "
            f"{work['together_generate']} generated each; all tokens together, while all of them decode."
        )
    if any(value.short for row in found for value in row.values.values()):
        notes.append("*: of fewer tokens, as the engine was slow.")
    return notes + [f"{row.model} {row.format} {row.engine}: {note}" for row in found for note in row.notes]


def _speed(value: Value | None) -> str:
    if value is None:
        return ""
    ratio = "" if value.ratio is None else f" x{value.ratio:.2f}"
    return _spread(value, 1, 0 if value.median >= 200 else 1) + ("*" if value.short else "") + ratio


def _share(value: Value | None) -> str:
    return "" if value is None else f"{value.median:.0%} ({value.least:.0%}-{value.most:.0%})"


def _spread(value: Value | None, unit: float, digits: int) -> str:
    if value is None:
        return ""
    middle, least, most = (f"{number / unit:.{digits}f}" for number in (value.median, value.least, value.most))
    return middle if least == most else f"{middle} ({least}-{most})"
