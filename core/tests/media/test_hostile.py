"""Files made to harm: whatever is in them, frames or a MediaError come out, soon, and no warning."""

import struct
import time
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from bestiary.errors import MediaError
from bestiary.media.headers import gif_extent, jpeg_scans
from bestiary.media.limits import MediaLimits
from bestiary.media.opening import open_media
from bestiary.media.processor import Frames

NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 56, 3), np.uint8))


def saved(kind: str, image: Image.Image = NOISE, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def animated(kind: str) -> bytes:
    frames = [NOISE.rotate(angle) for angle in (90, 180, 270)]
    return saved(kind, save_all=True, append_images=frames, duration=100)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *, frames: int | None = None) -> bytes:
    """A header and nothing behind it: whoever decodes it fails in another way."""
    control = b"" if frames is None else chunk(b"acTL", struct.pack(">II", frames, 0))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + control + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def gif(*frames: tuple[int, int, int, int], screen: tuple[int, int] = (1, 1), before: bytes = b"") -> bytes:
    """Frames of one pixel's data each, at places of any size."""
    image = b"".join(b"," + struct.pack("<HHHHB", *frame, 0) + b"\2\2\x44\1\0" for frame in frames)
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + before + image + b";"


def tiff(width: int, height: int, tile: tuple[int, int] | None = None) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(322, tile[0]), (323, tile[1]), (324, 8), (325, 8)] if tile else [(273, 8), (278, height), (279, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    return b"II*\0" + struct.pack("<I", 16) + b"x" * 8 + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def jpeg(width: int, height: int) -> bytes:
    data = bytearray(saved("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp(width: int, height: int) -> bytes:
    data = bytearray(saved("BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    data = bytearray(animated("WEBP"))
    at = data.index(b"VP8X")
    data[at + 12 : at + 18] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


LARGE = {
    "png of 13000 x 13000": lambda: saved("PNG", Image.new("1", (13000, 13000))),
    "png of 60000 x 2": lambda: png(60000, 2),
    "png of 2^31 a side": lambda: png((1 << 31) - 1, (1 << 31) - 1),
    "jpeg": lambda: jpeg(65500, 65500),
    "jpeg of 9000 x 11000": lambda: jpeg(9000, 11000),  # where Pillow would only warn
    "gif by its screen": lambda: gif((0, 0, 1, 1), screen=(65535, 65535)),
    "gif by its first frame": lambda: gif((0, 0, 9000, 11000)),
    "gif by the place of its frame": lambda: gif((65535, 65535, 1, 1)),
    "bmp": lambda: bmp(20000, 20000),
    "bmp upside down": lambda: bmp(20000, -20000),
    "tiff": lambda: tiff(20000, 20000),
    "tiff by its tiles": lambda: tiff(16, 16, (10240, 9216)),
    "webp": lambda: webp(16383, 16383),
}


@pytest.mark.parametrize("name", LARGE)
def test_bombs(name: str) -> None:
    data = LARGE[name]()
    assert len(data) < 100_000
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as caught, pytest.raises(MediaError, match=r"pixels|too large"):
        warnings.simplefilter("always")
        open_media(data, "image")
    assert not caught
    assert time.monotonic() - start < 3


def test_later_frames_of_a_gif_count_as_well() -> None:
    data = gif((0, 0, 1, 1), (0, 0, 9000, 11000))
    assert open_media(data, "image").frames[0].size == (1, 1)
    with pytest.raises(MediaError, match="9000 x 11000"):
        open_media(data, "video")


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\0\0junk\xff",
        b"!\xf9\0\4\0\0\0\0\0",
        b"!\xfe\0",
        b"!\xfe\3abc\2de\0",
        b"!\xff\0\3abc\0",
        b"!\xf9\4\0\0\0\0\0\0",
    ],
)
def test_what_stands_before_a_frame_hides_no_size(before: bytes) -> None:
    """The walk over a GIF sees what Pillow sees."""
    data = gif((3, 5, 7, 9), (0, 0, 2, 2), before=before)
    with Image.open(BytesIO(data)) as image:
        due = (image.n_frames, *image.size)
    made = gif_extent(data, 99)
    assert (made.frames, made.width, made.height) == due == (2, 10, 14)


def test_animations_without_end() -> None:
    data = gif(*[(0, 0, 1, 1)] * 100_000)
    assert open_media(data, "image").frames[0].size == (1, 1)
    for hostile in (data, png(4, 4, frames=100_000), png(4, 4, frames=1 << 31)):
        start = time.monotonic()
        with pytest.raises(MediaError, match="more than 768 frames"):
            open_media(hostile, "video")
        assert time.monotonic() - start < 3


def test_many_large_frames() -> None:
    with pytest.raises(MediaError, match="700 frames of 5000 x 5000"):
        open_media(gif(*[(0, 0, 1, 1)] * 700, screen=(5000, 5000)), "video")


def test_progressive_jpegs_of_many_scans() -> None:
    data = saved("JPEG", progressive=True)
    assert 5 < jpeg_scans(data, 1000) < 20
    assert jpeg_scans(saved("JPEG"), 1000) == 1
    at = data.rindex(b"\xff\xda")
    scan = data[at:-2]
    with pytest.raises(MediaError, match="more than 100 scans"):
        open_media(data[:at] + scan * 200 + b"\xff\xd9", "image")
    # What follows the picture, such as the film of a moving photograph, is no part of it.
    assert open_media(data + scan * 200, "image").frames[0].size == NOISE.size


GARBAGE = {
    "nothing": b"",
    "zeros": bytes(5000),
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "html": b"<!DOCTYPE html><html>not found</html>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    "pdf": b"%PDF-1.7\n",
    "psd": b"8BPS\0\1" + bytes(100),
    "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "fits": b"SIMPLE  =                    T" + b" " * 3000,
    "ppm": b"P6 1 1 255\n\0\0\0",
    "icon": b"\0\0\1\0\1\0" + bytes(100),
    "zip": b"PK\3\4" + bytes(100),
    "mp4": b"\0\0\0\x20ftypisom" + bytes(100),
    "quicktime": b"\0\0\0\x14ftypqt  " + bytes(100),
    "webm": b"\x1a\x45\xdf\xa3" + bytes(100),
    "avi": b"RIFF\0\0\0\0AVI LIST" + bytes(100),
    "heic": b"\0\0\0\x18ftypheic" + bytes(100),
    "wav": b"RIFF\0\0\0\0WAVEfmt " + bytes(100),
    "signature alone": b"\x89PNG\r\n\x1a\n",
    "signature and junk": b"\xff\xd8\xff\xe0" + b"<script>" * 100,
    "gif without frames": gif(),
    "png without size": png(0, 0),
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_files_that_are_no_pictures(name: str, kind: str) -> None:
    with pytest.raises(MediaError) as caught:
        open_media(GARBAGE[name], kind)
    assert "etc/passwd" not in str(caught.value)
    assert "script" not in str(caught.value)


@pytest.mark.parametrize("name", ["mp4", "quicktime", "webm", "avi"])
def test_films_are_told_how_else(name: str) -> None:
    with pytest.raises(MediaError, match="animated GIF, WebP, PNG and AVIF") as caught:
        open_media(GARBAGE[name], "video")
    assert "list of pictures" in str(caught.value.fix)


def test_a_still_is_no_video() -> None:
    with pytest.raises(MediaError, match="JPEG, a still picture"):
        open_media(saved("JPEG"), "video")


KINDS = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"] + (["AVIF"] if features.check("avif") else [])


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_pictures(kind: str) -> None:
    data = saved(kind, NOISE.quantize(64) if kind == "GIF" else NOISE)
    assert open_media(data, "image").frames[0].size == NOISE.size
    for part in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9):
        with pytest.raises(MediaError):
            open_media(data[: int(len(data) * part)], "image")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_truncated_animations() -> None:
    data = animated("PNG")
    with pytest.raises(MediaError):
        open_media(data[: len(data) // 2], "video")
    with pytest.raises(MediaError):  # four frames were announced
        open_media(data[: data.rindex(b"fcTL") - 4] + chunk(b"IEND", b""), "video")


SEEDS: dict[str, Callable[[], bytes]] = {
    **{kind: lambda kind=kind: saved(kind, NOISE.resize((12, 9))) for kind in KINDS},
    "animated GIF": lambda: animated("GIF")[:4000],
    "animated PNG": lambda: animated("PNG"),
    "animated WEBP": lambda: animated("WEBP"),
    "TIFF by libtiff": lambda: saved("TIFF", NOISE.resize((12, 9)), compression="tiff_deflate"),
    "JPEG with EXIF": lambda: saved("JPEG", NOISE.resize((12, 9)), exif=_exif()),
    "palette": lambda: saved("PNG", NOISE.quantize(9), transparency=bytes(9)),
}
SMALL = MediaLimits(pixels=1 << 20, frames=20, video_pixels=1 << 22)


def _exif() -> Image.Exif:
    made = Image.Exif()
    made[0x0112], made[0x010E] = 6, "a description"
    return made


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=40)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    early=st.booleans(),
)
def test_flipped_bytes(name: str, flips: list[tuple[float, int]], early: bool) -> None:
    """Only frames or a MediaError come out; half of the cases flip what is near the start, where the headers are."""
    data = bytearray(SEEDS[name]())
    for place, value in flips:
        data[int(place * (min(len(data), 120) if early else len(data)))] = value
    for kind in ("image", "video"):
        try:
            made = open_media(bytes(data), kind, SMALL)
        except MediaError:
            continue
        assert isinstance(made, Frames)
        assert all(frame.mode == "RGB" and frame.width * frame.height <= SMALL.pixels for frame in made.frames)


@settings(max_examples=200)
@given(
    head=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM", b"II*\0", b"MM\0*"]
    ),
    rest=st.binary(max_size=300),
)
def test_any_bytes(head: bytes, rest: bytes) -> None:
    for kind in ("image", "video"):
        with suppress(MediaError):
            assert isinstance(open_media(head + rest, kind, SMALL), Frames)
