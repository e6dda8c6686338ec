"""Bestiary beside llama.cpp, mistral.rs and transformers, in one run on the same files.

    python benchmarks/peers/run.py --python VENV/bin/python [--models 0.6B] [--formats Q4_K_M,Q8_0] [--rounds 3]
        [--engines bestiary,llama_cpp] [--parts load,single,requests] [--requests 1,4,8]
    python benchmarks/peers/run.py --read FILE.json,FILE.json

Models of random weights at real sizes are made once (see models.py).  Engines take turns, in a fresh process each time
and in an order that is turned round from one round to the next; the bandwidth of memory is measured before each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bandwidth import Bandwidth
from client import KINDS, Kind, version
from machine import processor, read_through, wait_for_quiet
from models import default_folder, gguf_file, hf_folder, listed, weight_bytes
from plot import draw
from prompts import Prompts
from sample import PARTS, Work, measure, prepare
from shapes import FORMATS, SHAPES
from table import table


def main() -> None:
    options = _parser().parse_args()
    output: Path = options.output or options.folder / "results" / time.strftime("%Y%m%d-%H%M%S")
    run = _merged(options.read) if options.read else _measure(options, output.with_suffix(".json"))
    if not run["samples"]:
        sys.exit("There is nothing to measure: transformers reads BF16 alone.")
    text = table(run)
    print(text)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".md").write_text(text + "\n")
    output.with_suffix(".json").write_text(json.dumps(run, indent=1))
    draw(run, output.with_suffix(".png"))
    print(f"{output}.json, .md and .png", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=listed(SHAPES), default=list(SHAPES), metavar="NAME,...")
    parser.add_argument("--formats", type=listed(FORMATS), default=list(FORMATS), metavar="NAME,...")
    parser.add_argument("--engines", type=listed(KINDS), default=list(KINDS), metavar="NAME,...")
    parser.add_argument("--python", default=sys.executable, help="the interpreter for which the peers are installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", type=listed(PARTS), default=list(PARTS), metavar="NAME,...")
    parser.add_argument("--requests", type=_counts, default=list(Work.requests), metavar="N,...", help="at once")
    parser.add_argument("--threads", type=int, default=Work.threads)
    parser.add_argument("--prompt", type=int, default=Work.prompt)
    parser.add_argument("--generate", type=int, default=Work.generate)
    parser.add_argument(
        "--seconds", type=float, default=Work.seconds, help="for one measurement; slower engines make fewer tokens"
    )
    parser.add_argument("--folder", type=Path, default=default_folder(), help="of the models, which are made once")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for a quiet machine before each process")
    parser.add_argument("--output", type=Path, help="path without suffix; default: the time, in results/ of --folder")
    parser.add_argument("--read", type=_paths, metavar="FILE,...", help="show earlier runs together; measure nothing")
    return parser


def _measure(options: argparse.Namespace, output: Path) -> dict[str, Any]:
    work = Work(
        threads=options.threads,
        prompt=options.prompt,
        generate=options.generate,
        requests=tuple(options.requests),
        seconds=options.seconds,
        parts=tuple(options.parts),
    )
    found = _installed(options.engines, options.python)
    shapes = {name: SHAPES[name] for name in options.models}
    files = {
        (name, kind): gguf_file(shape, kind, options.folder)
        for name, shape in shapes.items()
        for kind in options.formats
    }
    run: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {processor()}",
        "environment": {name: value for name, value in os.environ.items() if name.startswith("BESTIARY_")},
        "engines": {kind.name: number for kind, _, number in found},
        "work": asdict(work),
        "bytes": {f"{name} {kind}": weight_bytes(path) for (name, kind), path in files.items()},
        "samples": [],
    }
    bandwidth = Bandwidth(work.threads)
    output.parent.mkdir(parents=True, exist_ok=True)
    for number in range(options.rounds):
        for (model, kind), path in files.items():
            folder = hf_folder(shapes[model], options.folder)
            for engine, python in _turns(found, kind, number):
                wait_for_quiet(options.wait)
                place = {"round": number, "model": model, "format": kind, "engine": engine.name}
                place |= {"bandwidth": bandwidth.measure(), "time": time.strftime("%Y-%m-%d %H:%M:%S")}
                asked = folder if engine.folder else path
                read_through(asked)
                prompts = Prompts(folder, shapes[model])
                if not engine.peer:
                    prepare(engine, python, asked, prompts, work)
                sample = measure(engine, python, asked, prompts, work)
                run["samples"].append({**place, **sample})
                print(_told(run["samples"][-1]), file=sys.stderr, flush=True)
                output.write_text(json.dumps(run, indent=1))
    return run


def _turns(found: Sequence[tuple[Kind, str, str]], kind: str, number: int) -> list[tuple[Kind, str]]:
    """The engines that read a format, in the order of a round."""
    able = [(engine, python) for engine, python, _ in found if kind == "BF16" or not engine.folder]
    return able if number % 2 == 0 else able[::-1]


def _installed(names: Sequence[str], python: str) -> list[tuple[Kind, str, str]]:
    """Engines with their interpreter and version; says which are left out."""
    found = []
    for kind in map(KINDS.__getitem__, names):
        own = python if kind.peer else sys.executable
        number = version(kind, own)
        if number is None:
            print(f"{kind.name} is left out: it is not installed for {own}.  {kind.install}", file=sys.stderr)
        else:
            found.append((kind, own, number))
    if not found:
        sys.exit("No engine is installed.")
    return found


def _merged(files: Sequence[Path]) -> dict[str, Any]:
    """Runs of the same work on the same machine as one, whose rounds follow each other."""
    whole: dict[str, Any] = {}
    for file in files:
        run = json.loads(file.read_text())
        if not whole:
            whole = run
            continue
        if any(run[name] != whole[name] for name in ("machine", "environment", "work")):
            sys.exit(f"{file} is of another machine or environment, or of other work, than {files[0]}.")
        rounds = 1 + max((sample["round"] for sample in whole["samples"]), default=-1)
        whole["samples"] += [{**sample, "round": sample["round"] + rounds} for sample in run["samples"]]
        whole["engines"] |= run["engines"]
        whole["bytes"] |= run["bytes"]
    return whole


def _counts(text: str) -> list[int]:
    found = [int(number) for number in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError("there is at least one request")
    return found


def _paths(text: str) -> list[Path]:
    return [Path(name) for name in text.split(",")]


def _told(sample: dict[str, Any]) -> str:
    names = [name for name in sample if name in ("first", "prefill", "decode") or name.endswith(" at once")]
    notes = "".join(f"; {note}" for note in (*sample["notes"], sample.get("error", "")) if note)
    return (
        f"round {sample['round']} {sample['model']} {sample['format']} {sample['engine']}: "
        f"{', '.join(f'{name} {sample[name]:.1f}' for name in names)}; others {sample['others']:.2f}, "
        f"{sample['bandwidth'] / 1e9:.1f} GB/s{notes[:300]}"
    )


if __name__ == "__main__":
    main()
