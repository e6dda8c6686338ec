"""`bestiary bench`: how fast a model is on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from bestiary.cli.options import Device, Dtype, Json, Model, Offline, Plugin, Quant, Revision
from bestiary.cli.text import columns
from bestiary.errors import OptionError, shown
from bestiary.progress import bar
from bestiary.records import Progress

Numbers = list[str] | None
_LIST = "a number, or several with commas."


def bench(
    model: Model,
    prompt: Annotated[Numbers, typer.Option(metavar="N[,N...]", help=f"Tokens of the prompt: {_LIST}")] = None,
    generate: Annotated[Numbers, typer.Option(metavar="N[,N...]", help=f"Tokens to generate: {_LIST}")] = None,
    depth: Annotated[
        Numbers, typer.Option(metavar="N[,N...]", help=f"Tokens that are in the cache already: {_LIST}")
    ] = None,
    concurrency: Annotated[Numbers, typer.Option(metavar="N[,N...]", help=f"Requests at once: {_LIST}")] = None,
    repeat: Annotated[int, typer.Option(help="Runs of each case; the best counts.")] = 2,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the speeds; needs matplotlib.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quant: Quant = None,
    revision: Revision = None,
    plugin: Plugin = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Measure prompt and generation speed: every combination of prompts, answers, depths and requests at once."""
    import bestiary
    from bestiary.cli.bench_plot import check_plot, draw_speeds
    from bestiary.generation.speed import check_room, measure

    depths, answers = _numbers("depth", depth, 0) or [0], _numbers("generate", generate, 2) or [64]
    prompts, requests = _numbers("prompt", prompt, 1), _numbers("concurrency", concurrency, 1) or [1, 4, 8]
    if plot is not None:
        check_plot(plot)
    # Every request needs a place of its own in the cache, and two blocks for what does not fill one.
    longest = max(depths) + max(prompts or [512]) + max(answers)
    with bestiary.load(
        model,
        dtype=dtype,
        device=device,
        quant=quant,
        cache_tokens=max(requests) * (longest + 32),
        revision=revision,
        plugin=plugin,
        offline=offline,
    ) as pipe:
        if not hasattr(pipe, "engine"):
            raise OptionError(f"{model} is no language model, and bench measures these.")
        if not prompts:
            room = pipe.engine.context_length - max(answers) - max(depths)
            prompts = sorted({max(1, min(128, room)), max(1, min(512, room))})
        check_room(pipe.engine, max(prompts), max(answers), max(depths))
        rows: list[dict[str, Any]] = []
        cases = list(product(depths, prompts, answers, requests))
        with bar() as report:
            for tokens_before, length, tokens, together in cases:
                rows.append(measure(pipe.engine, length, tokens, together, repeat, tokens_before))
                if report:
                    report(Progress("bench", len(rows), len(cases), model))
        title = f"{model}, {str(pipe.dtype).removeprefix('torch.')} on {pipe.device}" + (f", {quant}" if quant else "")
    if plot is not None:
        draw_speeds(rows, title, plot)
    typer.echo(json.dumps(rows, indent=2) if as_json else _table(rows))


def _numbers(name: str, given: Sequence[str] | None, least: int) -> list[int]:
    """The numbers of an option that takes several, as often as it stands; without repetitions."""
    texts = [text.strip() for part in given or () for text in part.split(",")]
    for text in texts:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
            raise OptionError(f"--{name} is {shown(text)}; whole numbers from {least} are due, with commas between.")
    return list(dict.fromkeys(map(int, texts)))


def _table(rows: Sequence[dict[str, Any]]) -> str:
    head = ("depth", "prompt", "generate", "requests", "prompt tokens/s", "first token s", "decode tokens/s", "each")
    lines = [
        (
            str(row["depth"]),
            str(row["prompt"]),
            str(row["generate"]),
            str(row["requests"]),
            f"{row['prompt_tokens_per_second']:.0f}",
            f"{row['seconds_to_first_token']:.3f}",
            f"{row['decode_tokens_per_second']:.1f}",
            f"{row['decode_tokens_per_second'] / row['requests']:.1f}",
        )
        for row in rows
    ]
    made = columns([head, *lines], indent="")
    if any(row["depth"] >= 64 and not row["reused_tokens"] for row in rows):
        made += "\nThis model's cache keeps no beginnings: the prompt's speed is that of the tokens before it too."
    return made
