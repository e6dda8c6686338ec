"""Pictures on the command line, as a user gives them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gemma3_processor import save_processor
from PIL import Image

import bestiary
from bestiary.errors import MediaError, OptionError
from bestiary.media.limits import MediaLimits
from bestiary.testing.reference import make_reference
from bestiary_gemma3.tiny import GEMMA3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    make_reference(GEMMA3[0], made)
    save_processor(made, GEMMA3[0])
    random = np.random.default_rng(0)
    for name in ("a.png", "two words.png"):
        Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(made / name)
    return made


def run(folder: Path, *arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "bestiary",
        "run",
        str(folder),
        "--max-tokens",
        "40",
        "--no-stats",
        "--temperature",
        "0",
    ]
    return subprocess.run([*command, *arguments], input=lines, capture_output=True, text=True, timeout=120)


def test_a_question_about_pictures(folder: Path) -> None:
    picture = str(folder / "a.png")
    one = run(folder, "--image", picture, "What is it?")
    assert one.returncode == 0, one.stderr
    again = run(folder, "--image", picture, "What is it?")
    other = run(folder, "--image", str(folder / "two words.png"), "What is it?")
    two = run(folder, "--image", picture, "--image", str(folder / "two words.png"), "What is it?")
    assert one.stdout == again.stdout
    # Tokens that are no text look alike, and some answers have no others.
    assert len({one.stdout, other.stdout, two.stdout, run(folder, "What is it?").stdout}) >= 3


def test_what_is_wrong_is_said(folder: Path) -> None:
    absent = run(folder, "--image", str(folder / "absent.png"), "What is it?")
    assert absent.returncode == 1 and "absent.png" in absent.stderr and "fix:" in absent.stderr
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "broken.png" in run(folder, "--image", str(folder / "broken.png"), "What is it?").stderr
    assert "go with a question" in run(folder, "--image", str(folder / "a.png")).stderr


def test_a_model_without_eyes(folder: Path) -> None:
    command = [sys.executable, "-m", "bestiary", "run", "demo", "--image", str(folder / "a.png"), "What is it?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "takes no images" in done.stderr


def test_limits_can_be_set(folder: Path) -> None:
    picture = str(folder / "a.png")
    assert "max_edge" in run(folder, "--max-edge", "0", "--image", picture, "What is it?").stderr
    assert run(folder, "--max-edge", "16", "--image", picture, "What is it?").returncode == 0
    parts = [{"type": "image", "image": picture}] * 2
    limits = MediaLimits(count=1, local=False)
    with bestiary.load(str(folder), media_limits=limits, cache_tokens=2048, progress=False) as pipe:
        with pytest.raises(MediaError, match="1 are allowed"):
            pipe.chat([{"role": "user", "content": parts}])
        with pytest.raises(MediaError, match="not opened here"):
            pipe.chat([{"role": "user", "content": parts[:1]}])
    with pytest.raises(OptionError, match="MediaLimits is due"):
        bestiary.load(str(folder), media_limits={"count": 1}, progress=False)
