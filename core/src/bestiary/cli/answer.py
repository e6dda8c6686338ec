"""An answer on the terminal, as it comes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

import typer

from bestiary.cli.text import escaped

if TYPE_CHECKING:
    from bestiary.generation.completion import Chunk, Usage
    from bestiary.generation.conversation_stream import ChatStream
    from bestiary.generation.engine.request import Stream


def show(chunks: Stream | ChatStream | Generator[Chunk, None, None], stats: bool) -> Chunk | None:
    """Print an answer as it comes; returns its last chunk, or None where Ctrl-C stopped it."""
    last: Chunk | None = None
    with contextlib.closing(chunks):
        try:
            thinking = False
            for last in chunks:
                thinking = _print(last, thinking)
                sys.stdout.flush()
        except KeyboardInterrupt:
            typer.echo("\n[stopped]", err=True)
            return None
    typer.echo()
    if stats and last is not None and last.usage is not None:
        typer.echo(f"[{describe(last.usage)}, {last.finish_reason}]", err=True)
    return last


def _print(chunk: Chunk, thinking: bool) -> bool:
    """Content as it is, and calls on lines of their own; reasoning dim, and not where a pipe expects the answer.

    Returns whether reasoning was printed last.
    """
    from bestiary.generation.tools.events import CallArguments, CallEnd, CallStart, Reasoning

    for event in chunk.events:
        match event:
            case Reasoning(text):
                typer.secho(escaped(text), nl=False, err=True, dim=True)
                thinking = True
            case CallStart(_, name):
                typer.echo(f"\n[{escaped(name)} ", nl=False)
            case CallArguments(_, text):
                typer.echo(escaped(text), nl=False)
            case CallEnd():
                typer.echo("]", nl=False)
    if thinking and chunk.text:
        typer.echo(err=True)
        thinking = False
    typer.echo(escaped(chunk.text), nl=False)
    return thinking


def describe(usage: Usage) -> str:
    """One line: tokens, speed, and the wait for the first."""
    return (
        f"{usage.completion_tokens} tokens at {usage.tokens_per_second:.1f} tokens/s, "
        f"first after {usage.seconds_to_first_token:.2f} s, prompt of {usage.prompt_tokens}"
    )
