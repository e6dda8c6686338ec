"""`bestiary run` of a speech model: what it says into a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bestiary.cli.files import destination, words_of
from bestiary.cli.kinds import Given, Kind, chosen
from bestiary.cli.sounds import check_sounds, speed
from bestiary.cli.text import size
from bestiary.errors import OptionError

if TYPE_CHECKING:
    from bestiary.pipelines.speech import SpeechPipeline

_OF_A_CALL = ("max_tokens", "temperature", "top_p", "guidance", "speed", "seed")


def check(prompt: str | None, given: Given) -> None:
    if prompt is None or not prompt.strip():
        raise OptionError("There is nothing to say.", fix='add a text: bestiary run ID "Hello!" -o hello.wav')
    if len(given.get("audio", ())) > 1:
        raise OptionError("A voice is that of one --audio.", fix="leave the others out")
    if "audio_text" in given and "audio" not in given:
        raise OptionError("--audio-text is what is said in --audio.", fix="add --audio, or leave it out")
    check_sounds(given)

    from bestiary.speech.request import SpeechOptions

    SpeechOptions(**_options(given))


def speak(pipe: SpeechPipeline, prompt: str | None, given: Given, stats: bool) -> None:
    """Say a text, write it into a file and print its path."""
    text = (prompt or "").strip()
    began = time.perf_counter()
    speech = pipe(text, **_options(given))
    seconds = time.perf_counter() - began
    path = destination(given.get("output"), f"{words_of(text, 'speech')}-{speech.seed}", ".wav")
    speech.save(path)
    typer.echo(path)
    if "plot" in given:
        from bestiary.audio.plot import draw

        draw(speech.waveform, Path(given["plot"]).expanduser(), title=text[:80])
    if stats:
        cut = "" if speech.finished else ", cut before its end"
        typer.echo(f"[{speed(speech.duration, seconds)}, weights {size(pipe.nbytes)}{cut}]", err=True)


def _options(given: Given) -> dict[str, Any]:
    """Those of a call."""
    options = chosen(given, *_OF_A_CALL)
    options |= {"audio_prompt": given["audio"][0]} if "audio" in given else {}
    options |= {"audio_prompt_text": given["audio_text"]} if "audio_text" in given else {}
    return options


KIND = Kind(
    "a speech model",
    frozenset(("audio", "audio_text", "output", "plot", *_OF_A_CALL, "part", "dac_model_id")),
    check,
    speak,
    makes="a sound",
)
