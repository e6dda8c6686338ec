"""A picture is the same picture by whichever way it comes."""

import base64
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bestiary.errors import MediaError
from bestiary.media.limits import MediaLimits
from bestiary.media.opening import open_media

PIXELS = np.random.default_rng(3).integers(0, 256, (9, 13, 3), np.uint8)
_STREAM = BytesIO()
Image.fromarray(PIXELS).save(_STREAM, "PNG")
PNG = _STREAM.getvalue()
BASE64 = base64.b64encode(PNG).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "a picture ü.png"
    made.write_bytes(PNG)
    return made


def opened(source: Any, **limits: Any) -> np.ndarray:
    return np.asarray(open_media(source, "image", MediaLimits(**limits)).frames[0])


class Once:
    """A stream that cannot go back, and gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._inner = BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._inner.read(min(size, 7))


SOURCES: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: PNG,
    "bytearray": lambda path: bytearray(PNG),
    "memoryview": lambda path: memoryview(b"\0" + PNG)[1:],
    "memoryview with steps": lambda path: memoryview(bytes(byte for byte in PNG for _ in range(2)))[::2],
    "stream": lambda path: BytesIO(PNG),
    "stream at its end": lambda path: _at_end(BytesIO(PNG)),
    "stream that only reads": lambda path: Once(PNG),
    "path": lambda path: path,
    "name": str,
    "file URL": lambda path: path.as_uri(),
    "file URL of localhost": lambda path: path.as_uri().replace("file://", "FILE://localhost"),
    "data URL": lambda path: f"data:image/png;base64,{BASE64}",
    "data URL in capitals": lambda path: f"DATA:;BASE64,{BASE64}",
    "data URL of another type": lambda path: f"data:application/x;charset=utf-8;base64,{BASE64}",
    "data URL in lines": lambda path: (
        "data:image/png;base64,\n" + "\r\n ".join(BASE64[i : i + 50] for i in range(0, len(BASE64), 50))
    ),
    "data URL without padding": lambda path: f"data:image/png;base64,{BASE64.rstrip('=')}",
    "array": lambda path: PIXELS,
    "array of reversed rows": lambda path: PIXELS[::-1].copy()[::-1],
    "read-only array": lambda path: np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
    "array with alpha": lambda path: np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1),
    "picture": lambda path: Image.fromarray(PIXELS),
    "unread picture": lambda path: Image.open(BytesIO(PNG)),
}


def _at_end(stream: BytesIO) -> BytesIO:
    stream.read()
    return stream


@pytest.mark.parametrize("name", SOURCES)
def test_sources(name: str, path: Path) -> None:
    assert np.array_equal(opened(SOURCES[name](path)), PIXELS)


def test_home_folders(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    assert np.array_equal(opened(f"~/{path.name}"), PIXELS)


def test_grey_arrays() -> None:
    grey = PIXELS[..., 0]
    due = np.repeat(grey[..., None], 3, axis=-1)
    assert np.array_equal(opened(grey), due)
    assert np.array_equal(opened(grey[..., None]), due)


def test_urls(serve: Callable) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    answering = serve(lambda connection, request: connection.sendall(head + PNG))
    assert np.array_equal(opened(answering.url(), private=True), PIXELS)
    with pytest.raises(MediaError, match="public internet"):
        opened(answering.url())


def test_what_is_opened_is_not_the_source() -> None:
    array, picture = PIXELS.copy(), Image.fromarray(PIXELS)
    made = [open_media(source, "image").frames[0] for source in (array, picture)]
    array[:] = 0
    picture.paste((0, 0, 0), (0, 0, *picture.size))
    assert all(np.array_equal(np.asarray(image), PIXELS) for image in made)


WRONG = [
    *(None, 3, 2.5, object(), StringIO("text"), {"frames": []}, {1}),
    *(PIXELS.astype(np.float32) / 255, PIXELS.astype(np.int64), PIXELS > 7, PIXELS.transpose(2, 0, 1)),
    *(PIXELS[None, None], PIXELS[0, 0], PIXELS[:0], PIXELS[..., :2], np.array(7, np.uint8), np.array(["a"])),
    *("", "absent.png", "a\0b", "x" * 100_000, "~nobody-of-this-name/x.png", BASE64, "/", ".", "\ud800"),
    *(
        "ftp://a.test/b.png",
        "s3://a/b",
        "gopher://x",
        "http://",
        "file://other.test/a.png",
        "file:///absent",
        "file://[",
    ),
    *("file:///%00", "data:", "data:,", "data:image/png,abc", "data:image/png;base64", "data:image/png;base64,"),
    *("data:image/png;base64,====", "data:image/png;base64,AAA$", "data:image/png;base64,A", "data:image/png;base64,ü"),
    *("data:image/svg+xml;utf8,<svg/>", f"data:image/png;base64,{BASE64[:40]}=={BASE64[40:]}"),
    *(Path("absent"), Path("/dev/zero"), Path("/dev/null"), Path(), b"", bytearray(), memoryview(b"")),
]


@pytest.mark.parametrize("source", WRONG, ids=lambda source: repr(source)[:40].partition(" at 0x")[0])
@pytest.mark.parametrize("kind", ["image", "video"])
def test_sources_that_are_none(source: Any, kind: str) -> None:
    with pytest.raises(MediaError) as caught:
        open_media(source, kind)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("source", [[PNG], (PNG,), {"frames": [PNG]}])
def test_several_pictures_are_not_one(source: Any) -> None:
    with pytest.raises(MediaError, match="not one picture"):
        open_media(source, "image")


@pytest.mark.parametrize("kind", ["audio", "", None, 3, "Image"])
def test_other_kinds(kind: Any) -> None:
    with pytest.raises(MediaError, match="kind"):
        open_media(PNG, kind)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaError, match="no regular file"):
        open_media(tmp_path / "pipe", "image")


def test_servers_open_no_files_and_do_not_tell_which_there_are(path: Path) -> None:
    messages = set()
    for source in (path, str(path), path.as_uri(), "/absent", "file:///absent", "~/x", BASE64):
        with pytest.raises(MediaError, match="not opened here") as caught:
            opened(source, local=False)
        messages.add(caught.value.what)
    assert len(messages) == 1
    assert np.array_equal(opened(f"data:image/png;base64,{BASE64}", local=False), PIXELS)
    with pytest.raises(MediaError, match="not fetched here"):
        opened("http://pictures.test/", remote="off")


@pytest.mark.parametrize("name", [name for name in SOURCES if "array" not in name and "picture" not in name])
def test_bytes_above_the_limit(name: str, path: Path) -> None:
    assert np.array_equal(opened(SOURCES[name](path), bytes=len(PNG)), PIXELS)
    with pytest.raises(MediaError, match=f"more than {len(PNG) - 1} bytes"):
        opened(SOURCES[name](path), bytes=len(PNG) - 1)


def test_data_urls_above_the_limit_are_not_decoded() -> None:
    with pytest.raises(MediaError, match="more than"):
        opened("data:image/png;base64," + "$" * 5000, bytes=1000)
    with pytest.raises(MediaError, match="more than"):
        opened("data:image/png;base64," + " " * 5000, bytes=1000)


def test_files_that_never_end() -> None:
    class Endless:
        def read(self, size: int) -> bytes:
            return b"\x89PNG\r\n\x1a\n" * (size // 8 + 1)

    with pytest.raises(MediaError, match="more than"):
        opened(Endless(), bytes=100_000)


def frames_of(source: Any, **limits: Any) -> list[np.ndarray]:
    return [np.asarray(frame) for frame in open_media(source, "video", MediaLimits(**limits)).frames]


VIDEO = np.random.default_rng(5).integers(0, 256, (4, 6, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "source",
    [
        VIDEO,
        list(VIDEO),
        tuple(Image.fromarray(frame) for frame in VIDEO),
        {"frames": VIDEO},
        {"frames": list(VIDEO), "fps": None},
    ],
    ids=["array", "list", "pictures", "mapping", "mapping without a rate"],
)
def test_videos(source: Any) -> None:
    assert np.array_equal(frames_of(source), VIDEO)
    assert open_media(source, "video").fps is None


def test_a_video_says_its_rate() -> None:
    for fps in (2, 2.5, np.float64(30)):
        assert open_media({"frames": VIDEO, "fps": fps}, "video").fps == fps
    for wrong in (0, -1, float("nan"), float("inf"), "2", True, [2], 10**400):
        with pytest.raises(MediaError, match="fps"):
            open_media({"frames": VIDEO, "fps": wrong}, "video")


@pytest.mark.parametrize(
    "source",
    [
        *([], (), {}, {"fps": 2}, {"frames": []}, {"frames": VIDEO, "rate": 2}, {"frames": {"frames": VIDEO}}),
        *(
            [VIDEO[0], VIDEO[1][:-1]],
            [VIDEO[0], b"no picture"],
            [VIDEO],
            [[VIDEO[0]]],
            VIDEO[:0],
            VIDEO[0],
            VIDEO[..., :1],
        ),
        *(VIDEO / 255, PNG.replace(b"PNG", b"GIF")),
    ],
    ids=lambda source: repr(source)[:40],
)
def test_videos_that_are_none(source: Any) -> None:
    with pytest.raises(MediaError):
        open_media(source, "video")


def test_videos_above_the_limits() -> None:
    for source in (VIDEO, list(VIDEO)):
        assert len(frames_of(source, frames=4, video_pixels=4 * 6 * 8)) == 4
        with pytest.raises(MediaError, match="more than 3 frames"):
            frames_of(source, frames=3)
        with pytest.raises(MediaError, match="191 in all"):
            frames_of(source, video_pixels=4 * 6 * 8 - 1)
    # A frame that is scaled down counts as what it became.
    assert frames_of(list(VIDEO), video_pixels=4 * 3 * 4, max_edge=4)[0].shape == (3, 4, 3)


def test_an_animation_that_the_caller_has_opened_stays_where_it_is() -> None:
    stream = BytesIO()
    first, *others = (Image.fromarray(frame).quantize(8) for frame in VIDEO)
    first.save(stream, "GIF", save_all=True, append_images=others, duration=100)
    with Image.open(stream) as image:
        image.seek(2)
        second = np.asarray(image.convert("RGB"))
        made = open_media(image, "video")
        assert (len(made.frames), made.fps, image.tell()) == (4, 10.0, 2)
        assert np.array_equal(opened(image), second)
        assert np.array_equal(np.asarray(made.frames[2]), second)


@pytest.fixture
def unread(path: Path) -> Iterator[Image.Image]:
    with Image.open(path) as image:
        yield image


def test_threads_may_share_an_unread_picture(unread: Image.Image) -> None:
    gate = threading.Barrier(8)

    def work(_: int) -> np.ndarray:
        gate.wait()
        return opened(unread)

    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(made, PIXELS) for made in pool.map(work, range(8)))
