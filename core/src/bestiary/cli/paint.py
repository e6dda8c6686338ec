"""`bestiary run` of an image model: pictures into files."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bestiary.cli.text import size
from bestiary.errors import OptionError
from bestiary.nearest import did_you_mean

if TYPE_CHECKING:
    from bestiary.diffusion.steps import Step
    from bestiary.media.pixels import Picture
    from bestiary.pipelines.image import ImagePipeline

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def check_output(output: str | None) -> None:
    """Raises OptionError for a file that could not be written, before a model is loaded."""
    if output is None:
        return
    path = Path(output).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        fix = did_you_mean(path.suffix.lower(), SUFFIXES) or f"it ends in one of {', '.join(SUFFIXES)}"
        raise OptionError(f"{output} has no ending of a picture.", fix=fix)
    if not path.parent.is_dir():
        raise OptionError(f"There is no folder {path.parent}.", fix="make it, or choose another place")


def parts_of(given: Sequence[str]) -> str | dict[str, str] | None:
    """What `--part` says: NAME=ID for a part, or one ID for all that is missing.  Raises OptionError."""
    if not given:
        return None
    named = dict(each.split("=", 1) for each in given if re.match(r"[a-z0-9_]+=", each))
    if not named and len(given) == 1:
        return given[0]
    if len(named) < len(given):
        raise OptionError("--part is NAME=ID for each part, or one ID alone.", fix="--part vae=ae.safetensors")
    return named


def paint(pipe: ImagePipeline, prompt: str, options: Mapping[str, Any], output: str | None, stats: bool) -> None:
    """Make pictures, write each into a file and print its path."""
    taken: list[float] = []

    def watch(step: Step) -> None:
        taken.append(step.seconds)

    from bestiary.media.saving import save

    began = time.perf_counter()
    made = pipe([prompt], **options, callback=watch)
    seconds = time.perf_counter() - began
    for number, image in enumerate(made):
        path = _path(output, prompt, image, number, len(made))
        save(image, path)
        typer.echo(path)
    if stats:
        middle = sorted(taken)[len(taken) // 2]
        typer.echo(
            f"[{len(taken)} steps at {middle:.2f} s, {seconds:.1f} s in all, weights {size(pipe.nbytes)}]", err=True
        )


def _path(output: str | None, prompt: str, image: Picture, number: int, count: int) -> Path:
    if output is None:
        words = "-".join(re.findall(r"\w+", prompt.lower()))[:60].rstrip("-") or "picture"
        return _unused(Path(f"{words}-{image.info['seed']}.png"))
    path = Path(output).expanduser()
    return path if count == 1 else path.with_stem(f"{path.stem}-{number + 1}")


def _unused(path: Path) -> Path:
    """A name that no file has: what a user did not name is not written over."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found
