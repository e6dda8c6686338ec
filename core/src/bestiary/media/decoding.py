"""The bytes of a file become upright RGB pictures, with the pixel values of transformers' `load_image`.

Readers are taken from Pillow's registry and not through `Image.open`, which warns and fails by a limit that the whole
process shares; filters of warnings are shared between threads, so the warning could not be kept in here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import BytesIO
from threading import Lock

from PIL import Image, ImageFile, ImageOps

from bestiary.errors import MediaError
from bestiary.media.foreign import PICTURE_FIX, VIDEO_FIX, unread
from bestiary.media.headers import gif_extent, jpeg_scans
from bestiary.media.limits import MediaLimits
from bestiary.media.processor import Frames

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")
"""What is read.  Each further one is another decoder for the bytes of strangers: EPS starts a program, and the readers
of PPM and ICO are slow or lead back to the others."""

ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
"""Those that may hold a video."""

SCANS = 100
"""Of a JPEG; encoders make about ten."""

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF

_LOADING = Lock()
"""For pictures of the caller, which may be unread files that two requests share: Pillow reads without a lock."""

# Each registers itself.  Avif is not in every build of Pillow.
for _plugin in ("Png", "Jpeg", "Gif", "WebP", "Avif", "Bmp", "Tiff"):
    with suppress(ImportError):
        import_module(f"PIL.{_plugin}ImagePlugin")


def decode_picture(data: bytes, limits: MediaLimits, where: str) -> Image.Image:
    """A file's picture; of an animated one the first frame, of one with several pages the first page."""
    with _translated(where), _reader(data, limits, where, frames=1) as image:
        return upright(image, limits, where)


def decode_video(data: bytes, limits: MediaLimits, where: str) -> Frames:
    """All frames of an animated file, composed as players compose them, and how many there are in a second."""
    with _translated(where), _reader(data, limits, where, frames=limits.frames + 1) as image:
        if image.format not in ANIMATED:
            raise MediaError(f"The file is a {image.format}, a still picture, not a video.", where=where, fix=VIDEO_FIX)
        if image.format == "GIF":  # asking Pillow decides nothing before it has walked all of them
            count = gif_extent(data, limits.frames + 1).frames
        else:
            count = int(getattr(image, "n_frames", 1))
        # An APNG may begin with a picture for programs that cannot play it.
        return _played(image, range(int(getattr(image, "default_image", False)), count), limits, where)


def play(image: Image.Image, limits: MediaLimits, where: str) -> Frames:
    """The frames of a picture that the caller has opened, which is then as it was."""
    with _translated(where), _LOADING:
        check_size(*image.size, limits, where)
        place = image.tell()
        try:
            return _played(image, range(int(getattr(image, "n_frames", 1))), limits, where)
        finally:
            image.seek(place)


def take(image: Image.Image, limits: MediaLimits, where: str) -> Image.Image:
    """A picture of the caller's; of an animated one the frame at which it is."""
    with _translated(where), _LOADING:
        return upright(image, limits, where)


def upright(image: Image.Image, limits: MediaLimits, where: str) -> Image.Image:
    """A picture as `load_image` makes it, and scaled to `max_edge`.  It shares nothing with the one given."""
    check_size(*image.size, limits, where)
    made = ImageOps.exif_transpose(image)
    # Without it convert() warns of what it does with a transparent palette, and its pixels are the same.
    made.info.pop("transparency", None)
    made = made.convert("RGB")
    made.info = {}
    longest = max(made.size)
    if limits.max_edge is not None and longest > limits.max_edge:
        width, height = (max(1, round(side * limits.max_edge / longest)) for side in made.size)
        made = made.resize((width, height), Image.Resampling.LANCZOS)
    return made


def check_size(width: int, height: int, limits: MediaLimits, where: str) -> None:
    """Raise MediaError for what is too large to be decoded."""
    if width * height > limits.pixels or max(width, height) > limits.edge:
        raise MediaError(
            f"The picture has {width} x {height} pixels; {limits.pixels} in all and {limits.edge} a side are allowed.",
            where=where,
            fix="make it smaller, or raise the limits `pixels` and `edge`",
        )


def check_video(count: int, width: int, height: int, limits: MediaLimits, where: str) -> None:
    """Raise MediaError for too many frames, or too many pixels of all."""
    if count > limits.frames:
        fix = "leave some out, or raise the limit `frames`"
        raise MediaError(f"The video has more than {limits.frames} frames.", where=where, fix=fix)
    if count * width * height > limits.video_pixels:
        raise MediaError(
            f"The video has {count} frames of {width} x {height} pixels; {limits.video_pixels} in all are allowed.",
            where=where,
            fix="leave some out, make them smaller, or raise the limit `video_pixels`",
        )


@contextmanager
def _reader(data: bytes, limits: MediaLimits, where: str, *, frames: int) -> Iterator[ImageFile.ImageFile]:
    """Pillow's reader of the one format that the first bytes tell, all sizes checked; no pixel is decoded yet."""
    head = data[:16]
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        matches = factory is not None and accept is not None and accept(head)
        if factory is None or not matches or isinstance(matches, str):  # a text says that the build lacks the decoder
            continue
        if name == "GIF":
            extent = gif_extent(data, frames)
            check_size(extent.width, extent.height, limits, where)
        elif name == "JPEG" and jpeg_scans(data, SCANS + 1) > SCANS:
            raise MediaError(f"The JPEG has more than {SCANS} scans.", where=where, fix=PICTURE_FIX)
        with factory(BytesIO(data), "") as image:
            check_size(*image.size, limits, where)
            if name == "TIFF":  # a tile is decoded whole, however little of it the picture shows
                tags = getattr(image, "tag_v2", {})
                check_size(int(tags.get(_TILE_WIDTH, 1)), int(tags.get(_TILE_LENGTH, 1)), limits, where)
            yield image
        return
    raise unread(data, where)


def _played(image: Image.Image, indices: range, limits: MediaLimits, where: str) -> Frames:
    check_video(len(indices), *image.size, limits, where)
    frames: list[Image.Image] = []
    milliseconds = 0.0
    for index in indices:
        image.seek(index)
        frames.append(upright(image, limits, where))
        milliseconds += float(image.info.get("duration", 0))
        if frames[-1].size != frames[0].size:
            raise MediaError("The frames of the video differ in size.", where=where)
    if not frames:
        raise MediaError("The video has no frames.", where=where)
    return Frames("video", tuple(frames), 1000 * len(frames) / milliseconds if milliseconds > 0 else None)


@contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError("The picture is too large to be decoded.", where=where, fix="make it smaller") from error
    except Exception as error:  # damaged files make Pillow's readers raise nearly everything, struct.error to KeyError
        reason = f"{type(error).__name__}: {error}"[:160]
        raise MediaError(
            f"The picture is damaged ({reason}).", where=where, fix="save it again, or send it again"
        ) from error
