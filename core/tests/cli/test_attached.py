"""Paths of pictures in a line, as terminals write them when files are dropped."""

from pathlib import Path

import pytest

from bestiary.cli.attached import attached, question


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("cat.png", "two words.JPG", "it's.webp", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_every_way_of_writing_a_path(pictures: Path) -> None:
    spaced = pictures / "two words.JPG"
    for written in (
        f"'{spaced}'",
        f'"{spaced}"',
        str(spaced).replace(" ", r"\ "),
        f"file://{str(spaced).replace(' ', '%20')}",
    ):
        assert attached(f"{written} What is  it?") == ("What is it?", [spaced])
    assert attached(f'"{pictures}/it\'s.webp"') == ("", [pictures / "it's.webp"])
    line = f"Compare {pictures}/cat.png with {pictures}/cat.png, please"
    assert attached(line)[1] == [pictures / "cat.png"]  # the second ends in a comma, and is no file
    assert attached(f"{pictures}/cat.png {spaced.name}")[1] == [pictures / "cat.png"]


@pytest.mark.parametrize(
    "line", ["Who's there?", "a  b", "/nowhere/cat.png is", "it's 'quoted", "\\", "~nobody/x.png", "\0.png"]
)
def test_other_lines_stay_as_they_are(line: str) -> None:
    assert attached(line) == (line, [])


def test_other_files_are_no_pictures(pictures: Path) -> None:
    assert attached(f"{pictures}/notes.txt")[1] == []


def test_a_question_has_its_pictures_first() -> None:
    assert question("Why?", []) == "Why?"
    assert question("Why?", ["a.png"], ["b.gif"]) == [
        {"type": "image", "image": "a.png"},
        {"type": "video", "video": "b.gif"},
        {"type": "text", "text": "Why?"},
    ]
    assert question("", ["a.png"]) == [{"type": "image", "image": "a.png"}]
