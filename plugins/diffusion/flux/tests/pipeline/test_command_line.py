"""`bestiary` with an image model: files, messages, and what `inspect` and `check` say of its parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary
from bestiary.cli import invoke

Make = Callable[..., tuple[Path, Any]]
SMALL = ["--height", "32", "--width", "48", "--steps", "2", "--seed", "1"]


@pytest.fixture
def folder(made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return made()[0]


def test_a_picture_goes_into_a_file_of_the_working_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", str(folder), "A red fox!", *SMALL]) == 0
    told = capsys.readouterr()
    assert told.out == "a-red-fox-1.png\n"
    assert "2 steps at" in told.err and "s in all" in told.err
    with Image.open("a-red-fox-1.png") as image:
        assert image.size == (48, 32)
        assert image.text == {"prompt": "A red fox!", "seed": "1", "steps": "2"}  # type: ignore[attr-defined]
        painted = np.asarray(image.convert("RGB"))
    with bestiary.load(str(folder), progress=False) as pipe:
        assert np.array_equal(painted, np.asarray(pipe("A red fox!", height=32, width=48, steps=2, seed=1)))
    assert invoke(["run", str(folder), "A red fox!", *SMALL]) == 0
    assert capsys.readouterr().out == "a-red-fox-1-2.png\n"  # nobody asked to write over the first


def test_several_pictures_begin_with_one(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (20, 10), (200, 30, 30)).save("begin.png")
    arguments = ["-n", "2", "-o", "out.jpg", "--image", "begin.png", "--strength", "0.5", "--no-stats"]
    assert invoke(["run", str(folder), "a fox", *SMALL, *arguments]) == 0
    assert capsys.readouterr().out.split() == ["out-1.jpg", "out-2.jpg"]
    assert (tmp_path / "out-2.jpg").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.txt"], "out.txt has no ending of a picture"),
        (["-o", "nowhere/out.png"], "There is no folder nowhere"),
        (["--height", "33"], "height is 33; a multiple of 4 is due"),
        (["--max-tokens", "3"], "--max-tokens means nothing to an image model"),
        (["--image", "a.png", "--image", "b.png", "-o", "c.png"], "A picture begins with one --image"),
        (["--part", "vae"], "vae"),
        (["--part", "unet=x"], "no part 'unet'"),
        (["--offload", "disk"], "offload is 'disk'"),
        (["--image", "absent.png"], "absent.png"),
    ],
)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert invoke(["run", str(folder), "a fox", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_options_of_pictures_mean_nothing_to_texts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "demo", "hi", "--steps", "3"]) == 1
    assert "--steps means nothing to a text model" in capsys.readouterr().err


def test_inspect_and_check_show_every_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["inspect", str(folder), "--quant", "q8_0"]) == 0
    told = capsys.readouterr().out
    for name in ("FluxTransformer2DModel", "AutoencoderKL", "CLIPTextModel", "T5EncoderModel"):
        assert f"architecture  {name}" in told
    assert told.count("packing\n") == 2  # of the transformer and of T5
    assert invoke(["check", str(folder), "--finite"]) == 0
    assert capsys.readouterr().out.count("every value is finite") == 4


def test_a_part_from_elsewhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transformer = str(folder / "transformer")
    assert invoke(["run", transformer, "a fox", *SMALL]) == 1
    assert "needs the part vae" in capsys.readouterr().err
    assert invoke(["run", transformer, "a fox", *SMALL, "--part", str(folder)]) == 0
