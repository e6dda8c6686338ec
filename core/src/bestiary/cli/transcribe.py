"""`bestiary run` of a model that writes down what it hears."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from bestiary.cli.files import destination, name_of
from bestiary.cli.kinds import Given, Kind, chosen
from bestiary.cli.sounds import check_sounds, speed
from bestiary.cli.text import escaped
from bestiary.errors import OptionError

if TYPE_CHECKING:
    from bestiary.audio.transcript import Segment
    from bestiary.pipelines.transcription import TranscriptionPipeline

_OF_A_CALL = ("language", "task", "temperature", "seed")


def check(prompt: str | None, given: Given) -> None:
    if "audio" not in given:
        fix = "add --audio FILE; the prompt of such a model is a text that could have come before"
        raise OptionError("There is no sound to write down.", fix=fix)
    check_sounds(given)


def transcribe(pipe: TranscriptionPipeline, prompt: str | None, given: Given, stats: bool) -> None:
    """Print what is said in sounds while it is heard, and write it into files.

    Paths go to stderr: stdout is the text, of several sounds each under its name, as `head` prints files.
    """
    options = chosen(given, *_OF_A_CALL) | ({"prompt": prompt} if prompt else {})
    sounds, heard, began = given["audio"], 0.0, time.perf_counter()
    for number, source in enumerate(sounds, 1):
        name, count = name_of(source, "sound"), len(sounds)
        if count > 1:
            typer.echo(f"==> {escaped(source[:200])} <==")
        sound: Any = source
        if "plot" in given:
            sound = _drawn(pipe, source, name, given["plot"], number, count)
        transcript = pipe.transcribe(sound, heard=_show, **options)
        heard += transcript.duration
        if "output" in given:
            path = destination(given["output"], name, ".txt", number, count)
            transcript.save(path)
            typer.echo(path, err=True)
    if stats:
        typer.echo(f"[{speed(heard, time.perf_counter() - began)}]", err=True)


def _show(segment: Segment) -> None:
    typer.echo(escaped(segment.text.strip()))


def _drawn(pipe: TranscriptionPipeline, source: str, name: str, plot: str, number: int, count: int) -> Any:
    """The sound, opened and drawn, so that a URL is fetched once."""
    from bestiary.audio.opening import open_audio
    from bestiary.audio.plot import draw

    sound = open_audio(source, pipe.limits)
    draw(sound, destination(plot, name, ".png", number, count), title=name)
    return sound


KIND = Kind(
    "a model that writes down what it hears",
    frozenset(("audio", "output", "plot", *_OF_A_CALL)),
    check,
    transcribe,
    makes="a transcript",
    reads=False,
)
