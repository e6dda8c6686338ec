"""What a file is that is not read as a picture, told from its first bytes, so that the error can say it."""

from __future__ import annotations

from bestiary.errors import MediaError

PICTURE_FIX = "save it as PNG, JPEG, WebP, GIF, AVIF, BMP or TIFF"
VIDEO_FIX = 'give its frames: a list of pictures, or {"frames": [...], "fps": 2.0}'

_PICTURES = (
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"P6", "a PPM"),
    (0, b"P5", "a PGM"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"PK\3\4", "a zip archive"),
    (0, b"ID3", "a sound"),
    (0, b"fLaC", "a sound"),
    (8, b"WAVE", "a sound"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC, or AVIF that this build of Pillow does not read"),
    (4, b"ftypavi", "AVIF, which this build of Pillow does not read"),
)
_VIDEOS = (
    (4, b"ftyp", "MP4 or QuickTime"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (8, b"AVI ", "AVI"),
    (0, b"\0\0\1\xba", "MPEG"),
    (0, b"FLV", "Flash"),
    (0, b"OggS", "Ogg"),
)


def unread(data: bytes, where: str) -> MediaError:
    """The error for a file that no reader takes."""
    if not data:
        return MediaError("The picture is empty, without a single byte.", where=where)
    for at, mark, name in _PICTURES:
        if data.startswith(mark, at):
            return MediaError(f"The file is {name}: that is not read.", where=where, fix=PICTURE_FIX)
    for at, mark, name in _VIDEOS:
        if data.startswith(mark, at):
            what = f"The file is {name}: of videos only animated GIF, WebP, PNG and AVIF are read."
            return MediaError(what, where=where, fix=VIDEO_FIX)
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<") and b"<svg" in start:
        return MediaError("The file is SVG, which is drawn and not read.", where=where, fix=PICTURE_FIX)
    if start.startswith((b"<!doc", b"<html", b"<head", b"<?xml")):
        return MediaError("The file is a web page, not a picture.", where=where, fix="give the address of the picture")
    return MediaError("The file is no picture of a kind that is read.", where=where, fix=PICTURE_FIX)
