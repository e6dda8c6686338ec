"""`bestiary bench`: its cases, its table, its picture, and what it refuses."""

import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from bestiary.cli import invoke
from bestiary.cli.bench_plot import draw_speeds

SHORT = ["bench", "demo", "--generate", "3", "--repeat", "1"]


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert invoke([*SHORT, "--json", *arguments]) == 0
    made: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return made


def test_every_combination_is_a_case(capsys: pytest.CaptureFixture[str]) -> None:
    """Lists with commas, options that stand several times, and both."""
    rows = rows_of(
        capsys, "--prompt", "4,6", "--depth", "0", "--depth", "32,0", "--concurrency", " 2 , 1", "--generate", "4"
    )
    names = ("depth", "prompt", "generate", "requests")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (depth, prompt, generate, requests)
        for depth in (0, 32)
        for prompt in (4, 6)
        for generate in (3, 4)
        for requests in (2, 1)
    ]
    assert all(row["reused_tokens"] == row["depth"] * row["requests"] for row in rows)


def test_the_usual_cases_fit_a_short_context(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(capsys, "--depth", "900", "--concurrency", "1")
    assert [row["prompt"] for row in rows] == [1024 - 900 - 3]


def test_the_table_has_a_line_for_each_case_and_the_speed_of_each_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([*SHORT, "--prompt", "4", "--depth", "64", "--concurrency", "1,2"]) == 0
    out = capsys.readouterr().out
    head, *lines = out.splitlines()
    assert head.split()[:4] == ["depth", "prompt", "generate", "requests"]
    assert [line.split()[:4] for line in lines] == [["64", "4", "3", "1"], ["64", "4", "3", "2"]]
    *_, together, each = lines[1].split()
    assert float(each) == pytest.approx(float(together) / 2, abs=0.1)


@pytest.mark.parametrize("name", ["prompt", "generate", "depth", "concurrency"])
@pytest.mark.parametrize("value", ["", "x", "3,", "-1", "1.5", "٣", "9" * 5000])
def test_numbers_that_are_none_are_refused_by_the_name_of_their_option(
    name: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke([*SHORT, f"--{name}={value}"]) == 1
    error = capsys.readouterr().err
    assert f"--{name}" in error and "whole numbers" in error and len(error) < 500


def test_what_cannot_fit_is_refused_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([*SHORT, "--prompt", "4", "--depth", "0,1018"]) == 1
    captured = capsys.readouterr()
    assert "1018 + 4 + 3 tokens" in captured.err and "context of 1024" in captured.err and not captured.out


# The picture


def test_a_picture_is_drawn_beside_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "speed.png"
    assert invoke([*SHORT, "--prompt", "4", "--concurrency", "1,2", "--plot", str(file)]) == 0
    assert capsys.readouterr().out.startswith("depth")
    head = file.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", head[16:24]) == (1650, 675)


def texts_of(rows: list[dict[str, Any]], title: str, folder: Path) -> list[str]:
    """What stands in the picture: SVG has each text, drawn as curves, in a comment before it."""
    file = folder / "speed.svg"
    draw_speeds(rows, title, file)
    return re.findall(r"<!-- (.*?) -->", file.read_text(encoding="utf-8"))


def case(**changes: int) -> dict[str, Any]:
    speeds = {"prompt_tokens_per_second": 100.0, "decode_tokens_per_second": 10.0}
    return {"depth": 0, "prompt": 8, "generate": 4, "requests": 1, **speeds, **changes}


def test_a_picture_names_its_model_its_axes_and_its_lines(tmp_path: Path) -> None:
    rows = [case(depth=depth, requests=requests) for depth in (0, 512, 4096) for requests in (1, 8)]
    texts = texts_of(rows, "a/model at $cost and $price, float32 on cpu", tmp_path)
    assert "a/model at $cost and $price, float32 on cpu" in texts
    assert texts.count("tokens in the cache before the prompt") == texts.count("tokens per second") == 2
    assert {"Generation, all requests together", "Prompt, all requests together"} <= {*texts}
    assert texts.count("requests 1") == texts.count("requests 8") == 2 and {"0", "512", "4096"} <= {*texts}


def test_what_varies_runs_along_the_axis(tmp_path: Path) -> None:
    for rows, expected in (
        ([case(requests=1), case(requests=4)], "requests at once"),
        ([case(prompt=8), case(prompt=64)], "tokens of the prompt"),
        ([case(generate=8), case(generate=64)], "tokens generated"),
        ([case()], "requests at once"),
    ):
        texts = texts_of(rows, "it", tmp_path)
        assert texts.count(expected) == 2 and not [text for text in texts if text.startswith("requests 1")]


def test_a_picture_that_cannot_be_drawn_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.png").mkdir()
    for file, told in (
        (tmp_path / "speed.txt", "png"),
        (tmp_path / "speed", "png"),
        (tmp_path / "nowhere" / "speed.png", "a folder that exists"),
        (tmp_path / "folder.png", "cannot be written"),
    ):
        assert invoke([*SHORT, "--plot", str(file)]) == 1
        captured = capsys.readouterr()
        assert told in captured.err and not captured.out
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    assert invoke([*SHORT, "--plot", str(tmp_path / "speed.png")]) == 1
    assert 'pip install "bestiary-core[plot]"' in capsys.readouterr().err
