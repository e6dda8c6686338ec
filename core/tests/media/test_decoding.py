"""Pictures have the pixel values of transformers' load_image; videos have the frames that Pillow composes."""

import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence, features
from transformers.image_utils import load_image

from bestiary.media.limits import MediaLimits
from bestiary.media.opening import open_media

RANDOM = np.random.default_rng(7)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    made = RANDOM.integers(0, 256, (height, width, channels), np.uint8)
    return made[..., 0] if channels == 1 else made


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(open_media(data, "image").frames[0])


def reference(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transparent palettes, which load_image lets pass
        return np.asarray(load_image(Image.open(BytesIO(data))))


def colours(height: int = 23, width: int = 37) -> Image.Image:
    return Image.fromarray(noise(height, width))


def palette() -> Image.Image:
    return colours().quantize(16)


def with_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(RANDOM.integers(0, 1 << 16, (23, 37), np.uint16))
    if mode == "F":
        return Image.fromarray(RANDOM.normal(100, 100, (23, 37)).astype(np.float32))
    if mode == "I":
        return Image.fromarray(RANDOM.integers(-(1 << 20), 1 << 20, (23, 37), np.int32))
    channels = {"LA": 2, "RGBA": 4, "CMYK": 4}.get(mode)
    return Image.fromarray(noise(23, 37, channels), mode) if channels else colours().convert(mode)


PICTURES: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: saved(colours(), "JPEG"),
    "jpeg grey": lambda: saved(with_mode("L"), "JPEG"),
    "jpeg CMYK": lambda: saved(with_mode("CMYK"), "JPEG"),
    "jpeg YCbCr": lambda: saved(colours().convert("YCbCr"), "JPEG"),
    "jpeg progressive": lambda: saved(colours(100, 100), "JPEG", progressive=True),
    "png": lambda: saved(colours(), "PNG"),
    "png interlaced 1x1": lambda: saved(colours(1, 1), "PNG"),
    "png 1x4000": lambda: saved(colours(1, 4000), "PNG"),
    "png 4000x1": lambda: saved(colours(4000, 1), "PNG"),
    "png 1 bit": lambda: saved(with_mode("1"), "PNG"),
    "png grey": lambda: saved(with_mode("L"), "PNG"),
    "png grey with a transparent value": lambda: saved(with_mode("L"), "PNG", transparency=7),
    "png with a transparent colour": lambda: saved(colours(), "PNG", transparency=(1, 2, 3)),
    "png LA": lambda: saved(with_mode("LA"), "PNG"),
    "png RGBA": lambda: saved(with_mode("RGBA"), "PNG"),
    "png 16 bit": lambda: saved(with_mode("I;16"), "PNG"),
    "png palette": lambda: saved(palette(), "PNG"),
    "png palette with a transparent colour": lambda: saved(palette(), "PNG", transparency=3),
    "png palette with transparency": lambda: saved(palette(), "PNG", transparency=bytes(range(0, 160, 10))),
    "png of 2 bits a colour": lambda: saved(colours().quantize(4), "PNG", bits=2),
    "gif": lambda: saved(palette(), "GIF"),
    "gif with a transparent colour": lambda: saved(palette(), "GIF", transparency=3),
    "gif grey": lambda: saved(with_mode("L"), "GIF"),
    "webp": lambda: saved(colours(), "WEBP"),
    "webp lossless RGBA": lambda: saved(with_mode("RGBA"), "WEBP", lossless=True),
    "bmp": lambda: saved(colours(), "BMP"),
    "bmp palette": lambda: saved(palette(), "BMP"),
    "bmp 1 bit": lambda: saved(with_mode("1"), "BMP"),
    **{
        f"tiff {mode}": lambda mode=mode: saved(with_mode(mode), "TIFF")
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB", "YCbCr")
    },
    **{
        f"tiff {name}": lambda name=name: saved(colours(), "TIFF", compression=name)
        for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")
    },
}


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_those_of_transformers(name: str) -> None:
    data = PICTURES[name]()
    assert np.array_equal(pixels(data), reference(data))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(colours(), kind, exif=exif)
    made = pixels(data)
    assert np.array_equal(made, reference(data))
    assert made.shape == ((37, 23, 3) if 5 <= orientation <= 8 else (23, 37, 3))


@pytest.mark.skipif(not features.check("avif"), reason="this build of Pillow has no AVIF")
@pytest.mark.parametrize("orientation", [1, 6])
def test_avif(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(colours(), "AVIF", exif=exif)
    assert np.array_equal(pixels(data), reference(data))


def test_colour_profiles_are_ignored() -> None:
    from PIL import ImageCms

    image = colours()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(pixels(saved(image, "PNG", icc_profile=profile)), np.asarray(image))


@pytest.mark.parametrize(
    "name", ["australia.jpg", "bike.jpg", "exceltable.png", "mtmd_newspaper.jpeg", "test_colors.jpg"]
)
def test_real_pictures(name: str, shared_data: Path) -> None:
    path = shared_data / "media" / name
    made = open_media(path, "image").frames[0]
    assert np.array_equal(np.asarray(made), np.asarray(load_image(str(path))))


def test_a_picture_keeps_neither_file_nor_metadata() -> None:
    made = open_media(saved(colours(), "PNG", icc_profile=b"x" * 500), "image").frames[0]
    assert type(made) is Image.Image
    assert (made.mode, made.info) == ("RGB", {})


@pytest.mark.parametrize(
    ("size", "most", "due"),
    [
        ((40, 20), 10, (10, 5)),
        ((20, 40), 10, (5, 10)),
        ((1000, 1), 10, (10, 1)),
        ((7, 5), 7, (7, 5)),
        ((31, 17), 9, (9, 5)),
    ],
)
def test_max_edge_scales_down_with_lanczos(size: tuple[int, int], most: int, due: tuple[int, int]) -> None:
    image = colours(size[1], size[0])
    made = open_media(image, "image", MediaLimits(max_edge=most)).frames[0]
    wanted = image if size == due else image.resize(due, Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(made), np.asarray(wanted))


def animation(kind: str, count: int = 5, **options: Any) -> bytes:
    """Frames of which each keeps most of the one before, so that a reader has something to compose."""
    image = colours(16, 24)
    frames = []
    for index in range(count):
        image = image.copy()
        image.paste((40 * index, 255 - 40 * index, 7), (index, index, index + 5, index + 5))
        frames.append(image)
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)


ANIMATIONS: dict[str, Callable[[], bytes]] = {
    "gif": lambda: animation("GIF", duration=250),
    "gif disposal 2": lambda: animation("GIF", duration=250, disposal=2),
    "gif disposal 3": lambda: animation("GIF", duration=[100, 200, 300, 400, 250], disposal=3),
    "webp": lambda: animation("WEBP", duration=250),
    "apng": lambda: animation("PNG", duration=250),
    "apng disposal 1": lambda: animation("PNG", duration=250, disposal=1, blend=1),
}
if features.check("avif"):
    ANIMATIONS["avif"] = lambda: animation("AVIF", duration=250)


def composed(data: bytes) -> Iterator[np.ndarray]:
    with Image.open(BytesIO(data)) as image:
        for frame in ImageSequence.Iterator(image):
            frame.load()
            frame.info.pop("transparency", None)
            yield np.asarray(frame.convert("RGB"))


@pytest.mark.parametrize("name", ANIMATIONS)
def test_animations_are_videos(name: str) -> None:
    data = ANIMATIONS[name]()
    made = open_media(data, "video")
    assert (made.kind, len(made.frames)) == ("video", 5)
    assert made.fps == pytest.approx(4.0)
    for frame, due in zip(made.frames, composed(data), strict=True):
        assert np.array_equal(np.asarray(frame), due)


@pytest.mark.parametrize("name", ANIMATIONS)
def test_as_a_picture_an_animation_is_its_first_frame(name: str) -> None:
    data = ANIMATIONS[name]()
    made = open_media(data, "image")
    assert (made.kind, len(made.frames), made.fps) == ("image", 1, None)
    assert np.array_equal(np.asarray(made.frames[0]), reference(data))


def test_the_still_of_an_apng_is_no_frame() -> None:
    still, *frames = (Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue"))
    data = saved(still, "PNG", save_all=True, append_images=frames, default_image=True, duration=500)
    made = open_media(data, "video")
    assert [frame.getpixel((0, 0)) for frame in made.frames] == [(0, 128, 0), (0, 0, 255)]
    assert made.fps == pytest.approx(2.0)
    assert open_media(data, "image").frames[0].getpixel((0, 0)) == (255, 0, 0)


def test_a_single_frame_is_a_video_without_a_rate() -> None:
    made = open_media(saved(palette(), "GIF"), "video")
    assert (len(made.frames), made.fps) == (1, None)
