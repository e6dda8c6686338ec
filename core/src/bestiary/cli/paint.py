"""`bestiary run` of an image model: pictures into files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from bestiary.cli.files import destination, words_of
from bestiary.cli.kinds import Given, Kind, chosen
from bestiary.cli.text import size
from bestiary.errors import OptionError

if TYPE_CHECKING:
    from bestiary.diffusion.steps import Step
    from bestiary.pipelines.image import ImagePipeline

_OF_A_CALL = (
    *("height", "width", "steps", "guidance", "true_cfg", "mask", "strength", "reference", "control"),
    *("scheduler", "seed"),
)


def check(prompt: str | None, given: Given) -> None:
    if len(given.get("image", ())) > 1:
        raise OptionError("A picture begins with one --image.", fix="leave the others out")


def paint(pipe: ImagePipeline, prompt: str | None, given: Given, stats: bool) -> None:
    """Make pictures, write each into a file and print its path."""
    from bestiary.media.saving import save

    taken: list[float] = []

    def watch(step: Step) -> None:
        taken.append(step.seconds)

    prompt, options = prompt or "", chosen(given, *_OF_A_CALL)
    for flag, name in (("negative", "negative_prompt"), ("count", "n")):
        options |= {name: given[flag]} if flag in given else {}
    options |= {"image": given["image"][0]} if "image" in given else {}
    options |= {"adapters": ["cli"]} if "adapter" in given else {}
    began = time.perf_counter()
    made = pipe([prompt], **options, callback=watch)
    seconds = time.perf_counter() - began
    for number, image in enumerate(made, 1):
        name = f"{words_of(prompt, 'picture')}-{image.info['seed']}"
        path = destination(given.get("output"), name, ".png", number, len(made))
        save(image, path)
        typer.echo(path)
    if stats:
        middle = sorted(taken)[len(taken) // 2]
        typer.echo(
            f"[{len(taken)} steps at {middle:.2f} s, {seconds:.1f} s in all, weights {size(pipe.nbytes)}]", err=True
        )


KIND = Kind(
    "an image model",
    frozenset(
        (
            *("image", "negative", "count", "output", *_OF_A_CALL),
            *("part", "offload", "tile", "adapter", "max_edge"),
        )
    ),
    check,
    paint,
    makes="a picture",
)
