"""A local folder: what is seen, what is refused, and that nothing is sent."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bestiary.errors import ModelNotFound, OptionError, SourceError, UnsafeName
from bestiary.records import Progress, SourceOptions
from bestiary.sources import folder as module
from bestiary.sources.folder import Folder, claims_folder, open_folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    (root / "vae").mkdir(parents=True)
    (root / "config.json").write_bytes(b'{"a": 1}')
    (root / "vae" / "weights.safetensors").write_bytes(b"0123456789")
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text("x")
    (root / ".hidden").write_text("x")
    return root


def opened(path: Path | str, **options: object) -> Folder:
    return open_folder(str(path), SourceOptions(**options))  # type: ignore[arg-type]


def test_files_are_relative_with_forward_slashes_and_without_hidden_ones(model: Path) -> None:
    folder = opened(model)
    assert dict(folder.files()) == {"config.json": 8, "vae/weights.safetensors": 10}
    assert folder.local and folder.id == str(model) and folder.origin == str(model)


def test_path_head_fetch_and_missing(model: Path) -> None:
    folder = opened(model)
    events: list[Progress] = []
    assert folder.path("vae/weights.safetensors").read_bytes() == b"0123456789"
    assert folder.head("vae/weights.safetensors", 4) == b"0123"
    assert folder.head("config.json", 4096) == b'{"a": 1}'
    assert folder.head("config.json", 0) == folder.head("config.json", -1) == b""
    folder.fetch(["config.json"], events.append)
    assert folder.missing(["config.json"]) == folder.verify(["config.json"]) == {} and events == []


def test_an_absent_file_names_the_nearest(model: Path) -> None:
    for ask in (lambda f: f.path("confg.json"), lambda f: f.head("confg.json", 1), lambda f: f.fetch(["confg.json"])):
        with pytest.raises(ModelNotFound, match=r"'config\.json'"):
            ask(opened(model))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "vae/../../secret", "a\0b", "a\\b", ".hidden", "", "vae"])
def test_names_that_leave_the_folder_or_are_no_file_are_refused(model: Path, name: str) -> None:
    (model.parent / "secret").write_text("x")
    for ask in (lambda f: f.path(name), lambda f: f.head(name, 1), lambda f: f.missing([name])):
        with pytest.raises((UnsafeName, ModelNotFound)):
            ask(opened(model))


def test_links_that_lead_outside_are_left_out_with_a_warning(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model.parent / "secret").write_text("x")
    (model.parent / "elsewhere").mkdir()
    (model.parent / "elsewhere" / "x.json").write_text("x")
    (model / "out.json").symlink_to("../secret")
    (model / "absolute.json").symlink_to("/etc/passwd")
    (model / "out").symlink_to("../elsewhere")
    (model / "broken.json").symlink_to("nowhere")
    (model / "prefix.json").symlink_to(f"{model}-other")
    (model.parent / "model-other").write_text("x")
    folder = opened(model)
    assert set(folder.files()) == {"config.json", "vae/weights.safetensors"}
    assert {"out.json", "absolute.json", "out", "prefix.json"} == {record.__dict__["file"] for record in caplog.records}
    for name in ("out.json", "absolute.json", "prefix.json", "out/x.json"):
        with pytest.raises((UnsafeName, ModelNotFound)):
            folder.path(name)
    with pytest.raises(UnsafeName, match="leads out of the folder"):
        folder.path("out.json")


def test_links_inside_are_followed_and_a_loop_ends(model: Path) -> None:
    (model / "same.json").symlink_to("config.json")
    (model / "loop").symlink_to(".")
    (model / "vae" / "up").symlink_to("..")
    (model / "copy").symlink_to("vae")
    assert set(opened(model).files()) == {
        "config.json",
        "same.json",
        "vae/weights.safetensors",
        "copy/weights.safetensors",
    }


def test_a_linked_root_is_fine(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(model)
    assert "config.json" in opened(tmp_path / "link").files()


@pytest.mark.parametrize("inner", ["", "vae"])
def test_a_cache_snapshot_may_link_to_its_own_blobs_only(tmp_path: Path, inner: str) -> None:
    repository = tmp_path / "models--zoo--lion"
    snapshot = repository / "snapshots" / ("a" * 40)
    (snapshot / "vae").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "beef").write_bytes(b"blob")
    other = tmp_path / "models--zoo--other" / "blobs"
    other.mkdir(parents=True)
    (other / "cafe").write_bytes(b"other")
    up = "../" * (3 if inner else 2)
    (snapshot / inner / "config.json").symlink_to(f"{up}blobs/beef")
    (snapshot / inner / "other.json").symlink_to(f"{up}../models--zoo--other/blobs/cafe")
    folder = opened(snapshot / inner)
    assert dict(folder.files()) == {"config.json": 4}
    assert folder.head("config.json", 9) == b"blob"
    with pytest.raises(UnsafeName):
        folder.path("other.json")


def test_a_cache_snapshot_may_use_the_store_that_repositories_share(tmp_path: Path) -> None:
    repository = tmp_path / "models--zoo--lion"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "blobs" / "ab" / "abcd").write_bytes(b"shared")
    (repository / "blobs").mkdir()
    (repository / "blobs" / "beef").symlink_to("../../blobs/ab/abcd")
    (snapshot / "model.safetensors").symlink_to("../../blobs/beef")
    assert not opened(snapshot).files()
    (tmp_path / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    assert dict(opened(snapshot).files()) == {"model.safetensors": 6}


def test_names_that_no_hub_would_have_are_left_out(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (b"a\\b.json", b"a\nb.json", b"\xff.json", "x\u202ey.json".encode()):
        Path(os.fsdecode(bytes(model) + b"/" + name)).touch()
    folder = opened(model)
    assert set(folder.files()) == {"config.json", "vae/weights.safetensors"} and len(caplog.records) == 4
    folder.fetch(folder.files())


def test_pipes_are_not_files(model: Path) -> None:
    os.mkfifo(model / "pipe.json")
    folder = opened(model)
    assert "pipe.json" not in folder.files()
    with pytest.raises(ModelNotFound):
        folder.head("pipe.json", 1)


def test_too_many_entries_are_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 20)
    for number in range(30):
        (model / f"{number}.txt").touch()
    with pytest.raises(SourceError, match="more than 20 entries"):
        opened(model).files()


def test_depth_is_bounded(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*"abcdefghijkl")
    deep.mkdir(parents=True)
    (deep / "x.json").touch()
    (tmp_path / "a" / "y.json").touch()
    assert set(opened(tmp_path).files()) == {"a/y.json"}


def test_nothing_is_sent(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a folder must not touch the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    folder = opened(model)
    folder.fetch(folder.files())
    assert folder.missing(folder.files()) == {}
    with pytest.raises(ModelNotFound):
        folder.path("absent.json")
    with pytest.raises(ModelNotFound):
        opened(model.parent / "modl")


def test_what_is_claimed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    monkeypatch.setenv("HOME", str(model.parent))
    assert all(map(claims_folder, ["model", "./model", ".", "~/model", str(model), "./absent", "/absent", "~/absent"]))
    assert not any(map(claims_folder, ["zoo/lion", "gpt2", "", "model/config.json", "./model/config.json"]))
    assert not any(map(claims_folder, ["a\0b", "x" * 300, "x" * 5000]))


def test_an_absent_folder_names_the_nearest(model: Path) -> None:
    with pytest.raises(ModelNotFound, match="'model'"):
        opened(model.parent / "modle")


@pytest.mark.parametrize("id", ["a\0b", "./" + "x" * 300, "~no-such-user-at-all/x", "./" + "x/" * 4000])
def test_impossible_paths_are_our_errors(id: str) -> None:
    with pytest.raises(SourceError):
        opened(id)


def test_a_revision_is_refused(model: Path) -> None:
    with pytest.raises(OptionError, match="no revisions"):
        opened(model, revision="main")


def test_a_folder_that_cannot_be_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    folder = opened(model)
    monkeypatch.setattr(module.os, "scandir", refuse)
    with pytest.raises(SourceError, match="Permission denied"):
        folder.files()


def test_importing_the_sources_imports_neither_torch_nor_the_hub_client() -> None:
    code = (
        "import sys, bestiary.sources.folder, bestiary.sources.file, bestiary.sources.hub as hub\n"
        "assert hub.claims_hub('a/b')\n"
        "assert not {'torch', 'huggingface_hub', 'httpx', 'httpx2'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
