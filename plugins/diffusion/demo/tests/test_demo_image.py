"""The packaged model paints what prompts ask for, which a reader of pictures judges, and fits its package."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bestiary
import bestiary_demo_image

TRAINING = Path(__file__).parent.parent / "training"
PHRASES = (
    "a {colour} {shape} on {ground}",
    "{colour} {shape} on a {ground} background",
    "A small {colour} {shape} on {ground}.",
    "a picture of a large {colour} {shape} on {ground}",
    "A {colour} {shape} on the left on a {ground} background.",
)


@pytest.fixture(scope="module")
def scenes() -> Iterator[ModuleType]:
    yield from training("scenes")


@pytest.fixture(scope="module")
def reading() -> Iterator[ModuleType]:
    yield from training("reading")


def training(name: str) -> Iterator[ModuleType]:
    """A module of the training program, which is no package."""
    sys.path.insert(0, str(TRAINING))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(TRAINING))


@pytest.fixture(scope="module")
def pipe() -> Iterator[Any]:
    # In float32, so that the same pictures come on every machine.
    with bestiary.load("demo-image", dtype="float32", progress=False) as pipe:
        yield pipe


def held_out(scenes: ModuleType) -> list[Any]:
    """Every combination that training never drew."""
    every = [
        scenes.Scene(colour, shape, ground)
        for shape in scenes.SHAPES
        for colour in scenes.COLOURS
        for ground in scenes.COLOURS
        if ground != colour
    ]
    return [scene for scene in every if scene.held_out]


def test_the_reader_reads_drawn_pictures(scenes: ModuleType, reading: ModuleType) -> None:
    dice = Random("a reader's own test")
    for number in range(150):
        scene = scenes.draw_scene(dice, held_out=number % 3 == 0)
        found = reading.read(scenes.paint(scene, dice))
        assert (found.colour, found.shape, found.ground) == (scene.colour, scene.shape, scene.ground), scene
        assert found.likeness > 0.7


def test_the_reader_sees_nothing_on_an_even_picture(reading: ModuleType) -> None:
    found = reading.read(np.full((64, 64, 3), 255, np.uint8))
    assert (found.colour, found.shape, found.ground) == ("", "", "white")
    with pytest.raises(ValueError, match="shape"):
        reading.read(np.zeros((32, 32, 3), np.uint8))


def test_forty_combinations_that_it_never_saw_are_painted(pipe: Any, scenes: ModuleType, reading: ModuleType) -> None:
    asked = held_out(scenes)
    assert len(asked) == 40
    prompts = [
        PHRASES[number % len(PHRASES)].format(colour=scene.colour, shape=scene.shape, ground=scene.ground)
        for number, scene in enumerate(asked)
    ]
    images = pipe(prompts, seed=[52_000 + number for number in range(len(prompts))], progress=False)
    wrong = {}
    right = {"colour": 0, "shape": 0, "ground": 0}
    for scene, prompt, image in zip(asked, prompts, images, strict=True):
        assert image.size == (64, 64)
        found = reading.read(np.asarray(image))
        good = {name: getattr(found, name) == getattr(scene, name) for name in right}
        right = {name: right[name] + good[name] for name in right}
        if not all(good.values()):
            wrong[prompt] = found
    assert len(wrong) <= 0.1 * len(asked), (right, wrong)


def test_a_background_that_is_not_named_is_white(pipe: Any, reading: ModuleType) -> None:
    images = pipe(["a red circle", "A green square.", "white star"], seed=3, progress=False)
    seen = [reading.read(np.asarray(image)) for image in images]
    assert [(found.colour, found.shape, found.ground) for found in seen] == [
        ("red", "circle", "white"),
        ("green", "square", "white"),
        ("white", "star", "black"),
    ]


def test_it_paints_with_many_steps_and_with_guidance(pipe: Any, reading: ModuleType) -> None:
    for options in ({"steps": 28}, {"true_cfg": 2.0, "negative_prompt": ""}):
        found = reading.read(np.asarray(pipe("a yellow ring on purple", seed=11, progress=False, **options)))
        assert (found.colour, found.shape, found.ground) == ("yellow", "ring", "purple"), options


def test_the_package_is_small() -> None:
    files = [path for path in bestiary_demo_image.folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000


def test_it_has_at_most_three_million_parameters() -> None:
    count = 0
    for path in bestiary_demo_image.folder().rglob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        count += sum(int(np.prod(tensor["shape"])) for name, tensor in header.items() if name != "__metadata__")
    assert 1_000_000 <= count <= 3_000_000


def test_a_folder_called_demo_image_is_reached_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo-image").mkdir()
    monkeypatch.chdir(tmp_path)
    with bestiary.load("demo-image", progress=False) as packaged:
        assert packaged.identified.repository.root == bestiary_demo_image.folder().resolve()
    with pytest.raises(bestiary.BestiaryError, match=r"model_index\.json|config\.json"):
        bestiary.load("./demo-image", progress=False)
