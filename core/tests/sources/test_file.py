"""A single weight file: it is the only weight in sight."""

from pathlib import Path

import pytest

from bestiary.errors import ModelNotFound, OptionError, SourceError
from bestiary.records import SourceOptions
from bestiary.sources.file import claims_file, open_file
from bestiary.sources.folder import Folder


def opened(path: Path | str, **options: object) -> Folder:
    return open_file(str(path), SourceOptions(**options))  # type: ignore[arg-type]


NAMES = [
    "a.gguf",
    "b.gguf",
    "c.safetensors",
    "d.BIN",
    "e.pt",
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
    "merges.txt",
    "chat.jinja",
    "model.safetensors.index.json",
    "notes.pdf",
    ".hidden.json",
    "q-00001-of-00002.gguf",
    "q-00002-of-00002.gguf",
    "q-00001-of-00003.gguf",
    "odd.zoo",
    "other.zoo",
]


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_text(name)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "config.json").touch()
    return tmp_path


COMPANIONS = {"config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "chat.jinja"}


def test_only_the_chosen_weights_and_their_companions_are_seen(shelf: Path) -> None:
    repository = opened(shelf / "a.gguf")
    assert set(repository.files()) == {"a.gguf"} | COMPANIONS
    assert repository.local and repository.id == repository.origin == str(shelf / "a.gguf")
    assert repository.head("a.gguf", 2) == b"a."
    with pytest.raises(ModelNotFound):
        repository.path("b.gguf")


def test_a_part_of_a_split_model_stands_for_all_parts(shelf: Path) -> None:
    names = set(opened(shelf / "q-00001-of-00002.gguf").files())
    assert names == {"q-00001-of-00002.gguf", "q-00002-of-00002.gguf"} | COMPANIONS


def test_the_index_is_seen_only_with_a_shard_of_its_own(shelf: Path) -> None:
    (shelf / "model-00001-of-00002.safetensors").touch()
    assert "model.safetensors.index.json" in opened(shelf / "model-00001-of-00002.safetensors").files()
    assert "model.safetensors.index.json" not in opened(shelf / "c.safetensors").files()


def test_a_format_that_core_does_not_know_hides_its_like(shelf: Path) -> None:
    assert set(opened(shelf / "odd.zoo").files()) == {"odd.zoo"} | COMPANIONS


def test_a_file_linked_by_the_user_is_followed_but_no_other(
    shelf: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    links = tmp_path_factory.mktemp("links")
    (links / "mine.gguf").symlink_to(shelf / "a.gguf")
    (links / "config.json").symlink_to(shelf / "config.json")
    repository = opened(links / "mine.gguf")
    assert set(repository.files()) == {"mine.gguf"}
    assert repository.path("mine.gguf").read_text() == "a.gguf"


def test_a_crowded_folder_does_not_matter(shelf: Path) -> None:
    for number in range(200):
        (shelf / f"{number}.gguf").touch()
        (shelf / f"{number}.jpg").touch()
    assert set(opened(shelf / "a.gguf").files()) == {"a.gguf"} | COMPANIONS


def test_what_is_claimed(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf)
    monkeypatch.setenv("HOME", str(shelf))
    assert all(map(claims_file, ["a.gguf", "./a.gguf", "~/a.gguf", str(shelf / "a.gguf")]))
    assert not any(map(claims_file, ["below", "absent.gguf", "", "a\0b", "x" * 5000]))


def test_errors(shelf: Path) -> None:
    with pytest.raises(ModelNotFound):
        opened(shelf / "absent.gguf")
    with pytest.raises(OptionError):
        opened(shelf / "a.gguf", revision="main")
    with pytest.raises(SourceError):
        opened("a\0b")
