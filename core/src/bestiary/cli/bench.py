"""`bestiary bench`: how fast a model is on this machine."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from bestiary.cli.options import Device, Dtype, Json, Model, Offline, Plugin, Revision
from bestiary.cli.text import columns


def bench(
    model: Model,
    prompt: Annotated[list[int] | None, typer.Option(help="Tokens of the prompt; may be repeated.")] = None,
    generate: Annotated[int, typer.Option(help="Tokens to generate.")] = 64,
    concurrency: Annotated[list[int] | None, typer.Option(help="Requests at once; may be repeated.")] = None,
    repeat: Annotated[int, typer.Option(help="Runs of each case; the best counts.")] = 2,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quant: Annotated[str | None, typer.Option(help="Pack the weights while they load.")] = None,
    revision: Revision = None,
    plugin: Plugin = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Measure prompt and generation speed, for several prompt lengths and numbers of requests at once."""
    import bestiary
    from bestiary.generation.speed import measure

    rows: list[dict[str, Any]] = []
    with bestiary.load(
        model, dtype=dtype, device=device, quant=quant, revision=revision, plugin=plugin, offline=offline
    ) as pipe:
        longest = pipe.engine.context_length - generate
        for length in prompt or [min(128, longest), min(512, longest)]:
            for requests in concurrency or [1, 4, 8]:
                rows.append(measure(pipe.engine, length, generate, requests, repeat))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    head = ("prompt", "requests", "prompt tokens/s", "first token s", "decode tokens/s", "each")
    table = [
        (
            str(row["prompt"]),
            str(row["requests"]),
            f"{row['prompt_tokens_per_second']:.0f}",
            f"{row['seconds_to_first_token']:.3f}",
            f"{row['decode_tokens_per_second']:.1f}",
            f"{row['decode_tokens_per_second'] / row['requests']:.1f}",
        )
        for row in rows
    ]
    typer.echo(columns([head, *table], indent=""))
