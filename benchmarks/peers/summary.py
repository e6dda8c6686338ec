"""What the samples of a run come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

OWN = "bestiary"
APART = 0.2
"""Log-probabilities of first tokens that differ by more are worth a look: rounding alone makes a tenth of it or two."""

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """The samples of one measure."""

    median: float
    least: float
    most: float
    ratio: float | None = None
    """The median, over rounds, of how many times the fastest peer's number it is."""
    short: bool = False
    """Whether prompts or answers had fewer tokens than were asked for, as they would have taken too long."""


@dataclass(frozen=True)
class Row:
    """One engine with one file."""

    model: str
    format: str
    engine: str
    values: Mapping[str, Value]
    """"anonymous" is what was held after the single request, or at the end of what was measured before it."""
    roofline: Value | None
    """Tokens that were made over those for which the machine could have read all weights."""
    bandwidth: float
    """Bytes per second, the median of what was measured before each of its processes."""
    others: float
    samples: int
    notes: tuple[str, ...] = ()

    @property
    def limit(self) -> float | None:
        """Tokens per second at which the roofline is reached."""
        return None if self.roofline is None else self.values["decode"].median / self.roofline.median


def speeds(run: Mapping[str, Any]) -> list[str]:
    """The measures in tokens per second that were asked for."""
    work = run["work"]
    found = ["prefill", "decode"] if "single" in work["parts"] else []
    return found + ([f"{count} at once" for count in work["requests"]] if "requests" in work["parts"] else [])


def rows(run: Mapping[str, Any]) -> Iterator[Row]:
    """In the order in which files were first measured; engines in their own."""
    for model, kind in dict.fromkeys((sample["model"], sample["format"]) for sample in run["samples"]):
        found = [sample for sample in run["samples"] if (sample["model"], sample["format"]) == (model, kind)]
        chosen = {name: [sample for sample in found if sample["engine"] == name] for name in run["engines"]}
        for engine, samples in chosen.items():
            if samples:
                peers = [theirs for name, theirs in chosen.items() if name != OWN and theirs]
                yield _row(run, engine, samples, peers)


def _row(run: Mapping[str, Any], engine: str, samples: Sequence[Sample], peers: Sequence[Sequence[Sample]]) -> Row:
    first = samples[0]
    model, kind = first["model"], first["format"]
    values = {}
    for name in ("load", "first", *speeds(run)):
        if any(name in sample for sample in samples):
            values[name] = _value(run["work"], name, samples, peers if name in speeds(run) else ())
    held = [list(sample["memory"].items()) for sample in samples if sample["memory"]]
    if held:
        alone = [[row for part, row in parts if part != "requests"] for parts in held]
        values["anonymous"] = _spread([parts[-1]["anonymous"] for parts in alone])
        values["peak"] = _spread([parts[-1][1]["peak"] for parts in held])
    size = run["bytes"][f"{model} {kind}"]
    shares = [sample["decode"] * size / sample["bandwidth"] for sample in samples if "decode" in sample]
    return Row(
        model,
        kind,
        engine,
        values,
        _spread(shares) if shares else None,
        median(sample["bandwidth"] for sample in samples),
        max(sample["others"] for sample in samples),
        len(samples),
        _notes(samples, peers),
    )


def _value(work: Mapping[str, Any], name: str, samples: Sequence[Sample], peers: Sequence[Sequence[Sample]]) -> Value:
    own = {sample["round"]: sample[name] for sample in samples if name in sample}
    due = {"prefill": work["prompt"], "decode": work["generate"]}.get(name, work["together_generate"])
    short = any(sample["made"].get(name, due) < due for sample in samples)
    theirs = [{sample["round"]: sample[name] for sample in peer if name in sample} for peer in peers]
    fastest = max((peer for peer in theirs if peer), key=lambda peer: median(peer.values()), default={})
    ratios = [value / fastest[number] for number, value in own.items() if number in fastest]
    return _spread(list(own.values()), median(ratios) if ratios else None, short)


def _spread(found: Sequence[float], ratio: float | None = None, short: bool = False) -> Value:
    return Value(median(found), min(found), max(found), ratio, short)


def _notes(samples: Sequence[Sample], peers: Sequence[Sequence[Sample]]) -> tuple[str, ...]:
    """Errors, what was left out, and a first token that is none of the peers', or far less or more probable."""
    found = [note for sample in samples for note in (*sample["notes"], sample.get("error")) if note]
    own = next((sample["check"] for sample in samples if "check" in sample), None)
    theirs = [peer[0]["check"] for peer in peers if peer is not samples and "check" in peer[0]]
    if own is not None and theirs:
        near = [check for check in theirs if abs(check["logprob"] - own["logprob"]) <= APART]
        if not any(check["text"] == own["text"] for check in near):
            others = ", ".join(f"{check['text']!r} ({check['logprob']:.2f})" for check in theirs)
            found.append(f"its first token is {own['text']!r} ({own['logprob']:.2f}), that of peers {others}")
    return tuple(dict.fromkeys(found))
